//! How a worker or a checker is asked to leave.

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::support::signals::EndSignals;

/// Sends to `leave` when the program is asked to end by a signal. A second signal ends the program
/// at once; so does the end of standard input, with `stdin`.
pub async fn until_told(mut signals: EndSignals, stdin: bool, leave: mpsc::Sender<()>) {
    let closed = async {
        if stdin {
            let mut byte = [0; 1];
            while tokio::io::stdin()
                .read(&mut byte)
                .await
                .is_ok_and(|count| count > 0)
            {}
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::pin!(closed);
    let mut is_asked = false;
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = &mut closed => std::process::exit(0),
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
