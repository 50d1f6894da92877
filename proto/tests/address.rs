//! Which addresses are accepted, and with which words others are refused.

use concord_proto::address::Address;

#[test]
fn addresses_are_read_as_they_are_meant() {
    for (text, read) in [
        ("http://127.0.0.1:7700", "http://127.0.0.1:7700"),
        ("http://127.0.0.1:7700/", "http://127.0.0.1:7700"),
        ("HTTP://Some-Host.example:1", "http://some-host.example:1"),
        ("http://worker_1:65535", "http://worker_1:65535"),
        ("http://host.:7701", "http://host.:7701"),
        ("http://host", "http://host:80"),
        ("http://[::1]:7701", "http://[::1]:7701"),
        ("http://[::1]", "http://[::1]:80"),
        ("http://0.0.0.0:7700", "http://0.0.0.0:7700"),
        ("http://a1b2.3c", "http://a1b2.3c:80"),
    ] {
        let address = Address::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(address.to_string(), read, "{text}");
        let again = Address::parse(read).unwrap();
        assert_eq!(again, address, "{read} is read as itself");
    }
}

#[test]
fn what_is_no_address_is_refused_by_name() {
    let long = format!("http://{}:1", "a".repeat(300));
    let label = format!("http://{}:1", "a".repeat(64));
    for (text, words) in [
        ("https://host:7700", "only http:// is spoken here"),
        ("HTTPS://host:7700", "nothing would be encrypted"),
        ("ftp://x", "not ftp://"),
        ("h2c://x:1", "not h2c://"),
        ("grpc://x:1", "not grpc://"),
        ("unix:///tmp/socket", "not unix://"),
        ("127.0.0.1:1", "only http:// is spoken here"),
        ("localhost:7700", "http://HOST:PORT"),
        ("localhost", "http://HOST:PORT"),
        ("", "http://HOST:PORT"),
        ("://x:1", "http://HOST:PORT"),
        ("http:/x:1", "http://HOST:PORT"),
        ("http://", "no host"),
        ("http:///", "no host"),
        ("http://:7700", "no host"),
        ("http://a b:1", "character ' '"),
        (" http://a:1", "character ' '"),
        ("http://a:1\n", "character '\\n'"),
        ("http://a\u{0}:1", "character '\\0'"),
        ("http://a\\b:1", "character '\\\\'"),
        ("http://user@host:1", "user name"),
        ("http://user:secret@host:1", "user name"),
        ("http://host:1/path", "goes on after host and port"),
        ("http://host:1?x", "goes on after host and port"),
        ("http://host:1#x", "goes on after host and port"),
        ("http://host:1//", "goes on after host and port"),
        ("http://host:0", "\"0\" is no port"),
        ("http://host:", "\"\" is no port"),
        ("http://host:65536", "\"65536\" is no port"),
        ("http://host:+1", "\"+1\" is no port"),
        ("http://host:seven", "\"seven\" is no port"),
        ("http://::1:7701", "in brackets"),
        ("http://[::1:7701", "is no host"),
        ("http://[::1]7701", "is no host"),
        ("http://[fe80::1%eth0]:1", "is no host"),
        ("http://1.2.3:1", "\"1.2.3\" is no host"),
        ("http://256.1.1.1:1", "is no host"),
        ("http://0x7f000001:1", "is no host"),
        ("http://1:7701", "is no host"),
        ("http://*:7701", "is no host"),
        ("http://a..b:1", "is no host"),
        ("http://.:1", "is no host"),
        ("http://b\u{fc}ro:1", "is no host"),
        (label.as_str(), "is no host"),
        (long.as_str(), "at most 256 bytes"),
    ] {
        let refused = Address::parse(text).expect_err(text).to_string();
        assert!(refused.contains(words), "{text}: {refused}");
        assert!(!refused.contains('\n'), "on one line: {refused:?}");
        assert!(Address::for_others(text).is_err(), "{text}");
    }
}

/// A process can listen at these, and connect to them from its own machine, but others must not be
/// given them.
#[test]
fn others_are_not_told_an_address_of_nobody() {
    for host in [
        "0.0.0.0",
        "0.1.2.3",
        "255.255.255.255",
        "224.0.0.1",
        "[::]",
        "[0:0:0:0:0:0:0:0]",
        "[::ffff:0.0.0.0]",
        "[ff02::1]",
        "[fe80::1]",
    ] {
        let text = format!("http://{host}:7701");
        assert!(Address::parse(&text).is_ok(), "{text}");
        let refused = Address::for_others(&text).expect_err(&text).to_string();
        assert!(refused.contains("nobody can connect to"), "{refused}");
    }
    for host in ["10.0.0.7", "[2001:db8::1]", "host", "127.0.0.1"] {
        assert!(Address::for_others(&format!("http://{host}:1")).is_ok());
    }
}

#[test]
fn addresses_of_this_machine_alone_are_known() {
    for (host, is_loopback) in [
        ("127.0.0.1", true),
        ("127.9.9.9", true),
        ("[::1]", true),
        ("[::ffff:127.0.0.1]", true),
        ("localhost", true),
        ("LOCALHOST", true),
        ("a.localhost", true),
        ("10.0.0.1", false),
        ("[::2]", false),
        ("notlocalhost", false),
    ] {
        let address = Address::parse(&format!("http://{host}:1")).unwrap();
        assert_eq!(address.is_loopback(), is_loopback, "{host}");
    }
}
