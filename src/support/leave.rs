//! Asks a worker or a checker in this process to leave.

use std::io::Read;

use tokio::sync::{mpsc, oneshot};

use crate::support::signals::EndSignals;

/// Sends to `leave` when a signal asks the program to end. A second signal ends the program at
/// once; so does, with `stdin`, the end of standard input.
pub async fn until_told(mut signals: EndSignals, stdin: bool, leave: mpsc::Sender<()>) {
    let (ended, mut stdin_ended) = oneshot::channel();
    if stdin {
        // Not a thread of tokio: the runtime would wait for it at its end, and a member that ends
        // with an error would stay until the program that started it has ended.
        std::thread::spawn(move || {
            let mut bytes = [0; 64];
            while std::io::stdin()
                .read(&mut bytes)
                .is_ok_and(|count| count > 0)
            {}
            let _ = ended.send(());
        });
    }
    let mut is_asked = false;
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            Ok(()) = &mut stdin_ended, if stdin => std::process::exit(0),
        };
        if is_asked {
            tracing::warn!("{signal} again: ends at once");
            std::process::exit(1);
        }
        is_asked = true;
        if !stdin {
            tracing::warn!("{signal}: leaves once its work is handed over; again ends it at once");
        }
        let _ = leave.send(()).await;
    }
}
