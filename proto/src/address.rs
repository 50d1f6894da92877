//! Addresses of coordinators and workers: what can be connected to, and what is refused by name.
//!
//! An address is `concord://KEY@HOST:PORT`: a connection there is given up, before a byte is sent,
//! unless the process at its other end holds the private key of KEY. Only an address of this very
//! machine may lack the key. A process checks every address that it is given, and every address
//! that it gives to others, here.
//!
//! ```
//! use concord_proto::address::Address;
//!
//! assert!(Address::parse("concord://127.0.0.1:7700").is_ok());
//! let refused = Address::parse("concord://10.0.0.7:7701").expect_err("whose key?");
//! assert!(refused.to_string().contains("concord://KEY@10.0.0.7:7701"));
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::crypto::PublicKey;
use crate::limits::ADDRESS_BYTES_MAX;

/// The port of an address that names none: a coordinator's.
const DEFAULT_PORT: u16 = 7700;

/// The longest name that DNS has.
const HOST_BYTES_MAX: usize = 253;

/// An address that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whose key the process there must hold; any, where none is given.
    key: Option<PublicKey>,
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

/// Why an address was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is no address that can be used: {fault}", text.escape_debug())]
pub struct AddressError {
    text: String,
    fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("an address has at most {} bytes", ADDRESS_BYTES_MAX)]
    TooLong,
    #[error("it has to begin with concord://, as in concord://KEY@HOST:PORT")]
    NoScheme,
    #[error("only concord:// is spoken here, not {0}://: write concord://KEY@HOST:PORT")]
    Scheme(String),
    #[error(
        "beyond this machine an address names the key of who is there: concord://KEY@{0}. The \
         process there prints its address with the key when it starts"
    )]
    NoKey(String),
    #[error("{0:?} is no key: 64 hexadecimal digits are")]
    Key(String),
    #[error("it goes on after host and port: write concord://KEY@HOST:PORT alone")]
    Path,
    #[error("it has the character {0:?}")]
    Character(char),
    #[error("it has no host: write concord://KEY@HOST:PORT")]
    NoHost,
    #[error("{0:?} is no host")]
    Host(String),
    #[error("an IPv6 address stands in brackets: [::1]:7701")]
    Brackets,
    #[error("{0:?} is no port: 1 to 65535 are")]
    Port(String),
    #[error("nobody can connect to {0}: give the address that others reach this machine at")]
    Nobody(IpAddr),
    #[error("a process gives its own address without a key, which others know: concord://{0}")]
    OwnKey(String),
}

impl AddressError {
    fn of(text: &str, fault: Fault) -> Self {
        let text: String = text.chars().take(ADDRESS_BYTES_MAX).collect();
        Self { text, fault }
    }
}

impl Address {
    /// Reads an address. Without a port it is port 7700.
    ///
    /// # Errors
    /// [`AddressError`] for any text that is not `concord://KEY@HOST:PORT`, or, of this machine,
    /// `concord://HOST:PORT`.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let address = read(text).and_then(|address| {
            let is_known = address.key.is_some() || address.is_loopback();
            let bare = || Fault::NoKey(address.host_and_port());
            is_known.then(|| address.clone()).ok_or_else(bare)
        });
        address.map_err(|fault| AddressError::of(text, fault))
    }

    /// Reads an address that a process gives of itself, for others to connect to. It has no key:
    /// that is the one that the process is known by.
    ///
    /// # Errors
    /// [`AddressError`] for any text that is not `concord://HOST:PORT`, and for addresses that
    /// nobody can connect to, such as 0.0.0.0.
    pub fn for_others(text: &str) -> Result<Self, AddressError> {
        let address = read(text).and_then(|address| match (&address.host, address.key) {
            (Host::Ip(ip), _) if is_nobodys(*ip) => Err(Fault::Nobody(*ip)),
            (_, Some(_)) => Err(Fault::OwnKey(address.host_and_port())),
            (_, None) => Ok(address),
        });
        address.map_err(|fault| AddressError::of(text, fault))
    }

    /// The place of a socket, without a key.
    pub fn at(at: SocketAddr) -> Self {
        Self {
            key: None,
            host: Host::Ip(at.ip()),
            port: at.port(),
        }
    }

    /// The same place, where the holder of `key` has to be.
    pub fn of(self, key: PublicKey) -> Self {
        let key = Some(key);
        Self { key, ..self }
    }

    /// Whose key the process there must hold; none where any will do.
    pub fn key(&self) -> Option<PublicKey> {
        self.key
    }

    /// Host and port, as sockets are named: `10.0.0.7:7701`, `[::1]:7701`.
    pub fn host_and_port(&self) -> String {
        let port = self.port;
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
            Host::Ip(IpAddr::V4(ip)) => format!("{ip}:{port}"),
            Host::Name(name) => format!("{name}:{port}"),
        }
    }

    /// Whether only its own machine can reach it.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => {
                ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
            }
            Host::Ip(IpAddr::V4(ip)) => ip.is_loopback(),
            Host::Name(name) => {
                name == "localhost" || name.ends_with(".localhost") || name == "localhost."
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let place = self.host_and_port();
        match self.key {
            Some(key) => write!(f, "concord://{key}@{place}"),
            None => write!(f, "concord://{place}"),
        }
    }
}

fn read(text: &str) -> Result<Address, Fault> {
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(Fault::TooLong);
    }
    let is_odd = |c: &char| c.is_whitespace() || c.is_control() || *c == '\\';
    if let Some(odd) = text.chars().find(is_odd) {
        return Err(Fault::Character(odd));
    }
    let (scheme, rest) = text.split_once("://").ok_or(Fault::NoScheme)?;
    match scheme.to_ascii_lowercase().as_str() {
        "concord" => {}
        "" => return Err(Fault::NoScheme),
        _ => return Err(Fault::Scheme(scheme.to_string())),
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if !matches!(tail, "" | "/") {
        return Err(Fault::Path);
    }
    let (key, place) = match authority.split_once('@') {
        Some((key, place)) => (Some(read_key(key)?), place),
        None => (None, authority),
    };
    let (host, port) = split(place)?;
    Ok(Address {
        key,
        host,
        port: port.map_or(Ok(DEFAULT_PORT), read_port)?,
    })
}

fn read_key(text: &str) -> Result<PublicKey, Fault> {
    text.parse().map_err(|_| Fault::Key(text.to_string()))
}

/// Host and port.
fn split(authority: &str) -> Result<(Host, Option<&str>), Fault> {
    if let Some(inner) = authority.strip_prefix('[') {
        let bad = || Fault::Host(authority.to_string());
        let (ip, rest) = inner.split_once(']').ok_or_else(bad)?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| bad())?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':').ok_or_else(bad)?),
        };
        return Ok((Host::Ip(ip.into()), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if port.is_some_and(|port| port.contains(':')) {
        return Err(Fault::Brackets);
    }
    Ok((read_host(host)?, port))
}

fn read_host(host: &str) -> Result<Host, Fault> {
    if host.is_empty() {
        return Err(Fault::NoHost);
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(is_of_name)
    };
    // What ends with a number is read as an IPv4 address by some and as a name by others.
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_number = last.to_ascii_lowercase().starts_with("0x")
        || last.bytes().all(|byte| byte.is_ascii_digit());
    if is_number || name.len() > HOST_BYTES_MAX || !name.split('.').all(is_label) {
        return Err(Fault::Host(host.to_string()));
    }
    Ok(Host::Name(host.to_ascii_lowercase()))
}

fn read_port(port: &str) -> Result<u16, Fault> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(number @ 1..) if digits => Ok(number),
        _ => Err(Fault::Port(port.to_string())),
    }
}

/// Whether no other machine or process can reach anybody at this address.
fn is_nobodys(ip: IpAddr) -> bool {
    let v4 = |ip: Ipv4Addr| ip.octets()[0] == 0 || ip.is_multicast() || ip.is_broadcast();
    match ip {
        IpAddr::V4(ip) => v4(ip),
        // A link-local address means nothing without the name of its interface.
        IpAddr::V6(ip) => {
            let mapped = ip.to_ipv4_mapped();
            ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || mapped.is_some_and(v4)
        }
    }
}
