//! Addresses of coordinators and workers: what can be connected to, and what is refused by name.
//!
//! An address is `http://HOST:PORT`. A process checks every address that it is given, and every
//! address that it gives to others, here.
//!
//! ```
//! use concord_proto::address::Address;
//!
//! assert!(Address::parse("http://10.0.0.7:7701").is_ok());
//! let refused = Address::parse("https://10.0.0.7").expect_err("nothing is encrypted here");
//! assert!(refused.to_string().contains("http://"));
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::limits::NAME_BYTES_MAX;

/// The port of an address that names none.
const DEFAULT_PORT: u16 = 80;

/// The longest name that DNS has.
const HOST_BYTES_MAX: usize = 253;

/// An address that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
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
    #[error("an address has at most {} bytes", NAME_BYTES_MAX)]
    TooLong,
    #[error("only http:// is spoken here, and it has to stand in front: http://HOST:PORT")]
    NoScheme,
    #[error(
        "only http:// is spoken here: no byte is sent, because nothing would be encrypted. Where \
         the network is not trusted, use a tunnel and the http:// address of its end"
    )]
    Encrypted,
    #[error("only http:// is spoken here, not {0}://")]
    Scheme(String),
    #[error("it has a user name, and nobody here asks for one: write http://HOST:PORT")]
    User,
    #[error("it goes on after host and port: write http://HOST:PORT alone")]
    Path,
    #[error("it has the character {0:?}")]
    Character(char),
    #[error("it has no host: write http://HOST:PORT")]
    NoHost,
    #[error("{0:?} is no host")]
    Host(String),
    #[error("an IPv6 address stands in brackets: http://[::1]:7701")]
    Brackets,
    #[error("{0:?} is no port: 1 to 65535 are")]
    Port(String),
    #[error("nobody can connect to {0}: give the address that others reach this machine at")]
    Nobody(IpAddr),
}

impl Address {
    /// Reads an address. Without a port it is port 80.
    ///
    /// # Errors
    /// [`AddressError`] for any text that is not `http://HOST:PORT`.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        read(text).map_err(|fault| {
            let text: String = text.chars().take(NAME_BYTES_MAX).collect();
            AddressError { text, fault }
        })
    }

    /// Reads an address that others are told to connect to.
    ///
    /// # Errors
    /// [`AddressError`] as for [`Address::parse`], and for addresses that nobody can connect to,
    /// such as 0.0.0.0.
    pub fn for_others(text: &str) -> Result<Self, AddressError> {
        let address = Self::parse(text)?;
        match address.host {
            Host::Ip(ip) if is_nobodys(ip) => Err(AddressError {
                text: text.to_string(),
                fault: Fault::Nobody(ip),
            }),
            _ => Ok(address),
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
        let port = self.port;
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "http://[{ip}]:{port}"),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "http://{ip}:{port}"),
            Host::Name(name) => write!(f, "http://{name}:{port}"),
        }
    }
}

fn read(text: &str) -> Result<Address, Fault> {
    if text.len() > NAME_BYTES_MAX {
        return Err(Fault::TooLong);
    }
    let is_odd = |c: &char| c.is_whitespace() || c.is_control() || *c == '\\';
    if let Some(odd) = text.chars().find(is_odd) {
        return Err(Fault::Character(odd));
    }
    let (scheme, rest) = text.split_once("://").ok_or(Fault::NoScheme)?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {}
        "https" => return Err(Fault::Encrypted),
        "" => return Err(Fault::NoScheme),
        _ => return Err(Fault::Scheme(scheme.to_string())),
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if authority.contains('@') {
        return Err(Fault::User);
    }
    if !matches!(tail, "" | "/") {
        return Err(Fault::Path);
    }
    let (host, port) = split(authority)?;
    Ok(Address {
        host,
        port: port.map_or(Ok(DEFAULT_PORT), read_port)?,
    })
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
