//! What a worker tells others to connect to.

use std::net::SocketAddr;

use concord_proto::address::Address;

use super::WorkerOptions;
use crate::RuntimeError;

/// The address that the options name, checked before anything is started; none if it is the one at
/// which the worker will listen.
///
/// # Errors
/// [`RuntimeError::Address`] where `advertise` is no address that others can connect to;
/// [`RuntimeError::NotAdvertised`] where nothing says which address of this machine they reach.
pub(super) fn advertised(options: &WorkerOptions) -> Result<Option<Address>, RuntimeError> {
    match &options.advertise {
        Some(advertise) => Ok(Some(Address::for_others(advertise)?)),
        None if options.listen.ip().is_unspecified() => {
            Err(RuntimeError::NotAdvertised(options.listen))
        }
        None => Ok(None),
    }
}

/// What others are told of a worker that listens at `bound`.
///
/// # Errors
/// [`RuntimeError::Address`] where nobody can connect to it, such as an address of one link.
pub(super) fn endpoint(
    advertised: Option<Address>,
    bound: SocketAddr,
) -> Result<Address, RuntimeError> {
    match advertised {
        Some(address) => Ok(address),
        None => Ok(Address::for_others(&Address::at(bound).to_string())?),
    }
}

/// Whether a worker for this coordinator can be reached from other machines, as far as its address
/// tells: by workers and checkers that are elsewhere, as the coordinator is.
pub(super) fn is_hidden(endpoint: &Address, coordinator: &Address) -> bool {
    endpoint.is_loopback() && !coordinator.is_loopback()
}

#[cfg(test)]
mod tests {
    use concord_kernels::Device;

    use super::*;

    fn remote() -> String {
        format!("concord://{}@10.0.0.1:7700", "ab".repeat(32))
    }

    fn of(listen: &str, advertise: Option<&str>) -> Result<String, String> {
        let options = WorkerOptions {
            coordinator: remote(),
            listen: listen.parse().unwrap(),
            advertise: advertise.map(str::to_string),
            dir: "nowhere".into(),
            blobs: crate::blobs::BlobOptions::default(),
            device: Device::Reference,
            memory_bytes: 0,
            faults: crate::faults::Faults::default(),
        };
        let mut bound = options.listen;
        if bound.port() == 0 {
            bound.set_port(4_321);
        }
        let told = advertised(&options).and_then(|advertised| endpoint(advertised, bound));
        told.map(|address| address.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn others_are_told_what_they_can_connect_to() {
        for (listen, advertise, told) in [
            ("127.0.0.1:0", None, "concord://127.0.0.1:4321"),
            ("10.0.0.7:7701", None, "concord://10.0.0.7:7701"),
            ("[::1]:7701", None, "concord://[::1]:7701"),
            (
                "0.0.0.0:7701",
                Some("concord://me:7701"),
                "concord://me:7701",
            ),
            ("[::]:0", Some("concord://me:9"), "concord://me:9"),
        ] {
            assert_eq!(of(listen, advertise).as_deref(), Ok(told), "{listen}");
        }
    }

    #[test]
    fn what_nobody_can_connect_to_is_refused_at_the_start() {
        for (listen, advertise, words) in [
            ("0.0.0.0:7701", None, "--advertise"),
            ("[::]:0", None, "--advertise"),
            ("127.0.0.1:0", Some("127.0.0.1:1"), "begin with concord://"),
            ("127.0.0.1:0", Some("ftp://x"), "not ftp://"),
            ("127.0.0.1:0", Some("concord://a b:1"), "character ' '"),
            ("127.0.0.1:0", Some("https://me:1"), "not https://"),
            ("127.0.0.1:0", Some("concord://0.0.0.0:1"), "nobody can"),
            ("127.0.0.1:0", Some("concord://[::]:1"), "nobody can"),
            ("127.0.0.1:0", Some("concord://me:0"), "no port"),
            ("127.0.0.1:0", Some(""), "concord://KEY@HOST:PORT"),
            ("[fe80::1]:7701", None, "nobody can"),
        ] {
            let refused = of(listen, advertise).expect_err(listen);
            assert!(refused.contains(words), "{listen} {advertise:?}: {refused}");
        }
    }

    #[test]
    fn a_worker_that_only_its_own_machine_reaches_is_noticed() {
        let address = |text: &str| Address::parse(text).unwrap();
        let (here, there) = (address("concord://127.0.0.1:1"), address(&remote()));
        assert!(is_hidden(&here, &there));
        assert!(!is_hidden(&here, &here) && !is_hidden(&there, &here));
    }
}
