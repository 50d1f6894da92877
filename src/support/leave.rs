//! How a worker or a checker is asked to leave.

use std::io::Read;

use tokio::sync::{mpsc, oneshot};

use crate::support::signals::EndSignals;

/// Sends to `leave` when the program is asked to end by a signal. A second signal ends the program
/// at once; so does the end of standard input, with `stdin`.
pub async fn until_told(mut signals: EndSignals, stdin: bool, leave: mpsc::Sender<()>) {
    let (ended, mut stdin_ended) = oneshot::channel();
    if stdin {
        // Not a thread of tokio's: its runtime waits for those at its end, and a member that ends
        // with an error would stay until the program that started it is gone.
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
