//! Which addresses are accepted, and with which words others are refused.

use concord_proto::PublicKey;
use concord_proto::address::Address;

#[test]
fn addresses_are_read_as_they_are_meant() {
    for (text, read) in [
        (
            "concord://KEY@127.0.0.1:7700",
            "concord://KEY@127.0.0.1:7700",
        ),
        (
            "concord://KEY@127.0.0.1:7700/",
            "concord://KEY@127.0.0.1:7700",
        ),
        (
            "CONCORD://KEY@Some-Host.example:1",
            "concord://KEY@some-host.example:1",
        ),
        (
            "concord://KEY@worker_1:65535",
            "concord://KEY@worker_1:65535",
        ),
        ("concord://KEY@host.:7701", "concord://KEY@host.:7701"),
        ("concord://KEY@host", "concord://KEY@host:7700"),
        ("concord://KEY@[::1]:7701", "concord://KEY@[::1]:7701"),
        ("concord://KEY@[::1]", "concord://KEY@[::1]:7700"),
        ("concord://KEY@0.0.0.0:7700", "concord://KEY@0.0.0.0:7700"),
        ("concord://KEY@a1b2.3c", "concord://KEY@a1b2.3c:7700"),
        // Only this machine's may lack the key.
        ("concord://127.0.0.1:7700", "concord://127.0.0.1:7700"),
        ("concord://localhost", "concord://localhost:7700"),
        ("concord://[::1]:1", "concord://[::1]:1"),
    ] {
        let [text, read] = [text, read].map(with_key);
        let address = Address::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(address.to_string(), read, "{text}");
        let again = Address::parse(&read).unwrap();
        assert_eq!(again, address, "{read} is read as itself");
        let has_key = read.contains('@');
        assert_eq!(address.key(), has_key.then_some(PublicKey([0xab; 32])));
    }
}

/// A text with a key in place of "KEY".
fn with_key(text: &str) -> String {
    text.replace("KEY", &"ab".repeat(32))
}

#[test]
fn beyond_this_machine_an_address_without_a_key_is_refused() {
    for place in [
        "10.0.0.1:7700",
        "host:1",
        "[2001:db8::1]:7700",
        "0.0.0.0:7700",
    ] {
        let refused = Address::parse(&format!("concord://{place}")).expect_err(place);
        let words = format!("concord://KEY@{place}");
        assert!(refused.to_string().contains(&words), "{refused}");
    }
}

#[test]
fn what_is_no_address_is_refused_by_name() {
    let long = format!("concord://KEY@{}:1", "a".repeat(400));
    let label = format!("concord://KEY@{}:1", "a".repeat(64));
    for (text, words) in [
        ("http://host:7700", "not http://"),
        ("https://host:7700", "only concord:// is spoken here"),
        ("ftp://x", "not ftp://"),
        ("h2c://x:1", "not h2c://"),
        ("grpc://x:1", "not grpc://"),
        ("unix:///tmp/socket", "not unix://"),
        ("127.0.0.1:1", "begin with concord://"),
        ("localhost:7700", "concord://KEY@HOST:PORT"),
        ("localhost", "concord://KEY@HOST:PORT"),
        ("", "concord://KEY@HOST:PORT"),
        ("://x:1", "concord://KEY@HOST:PORT"),
        ("concord:/x:1", "concord://KEY@HOST:PORT"),
        ("concord://KEY@", "no host"),
        ("concord://KEY@/", "no host"),
        ("concord://KEY@:7700", "no host"),
        ("concord://KEY@a b:1", "character ' '"),
        (" concord://KEY@a:1", "character ' '"),
        ("concord://KEY@a:1\n", "character '\\n'"),
        ("concord://KEY@a\u{0}:1", "character '\\0'"),
        ("concord://KEY@a\\b:1", "character '\\\\'"),
        ("concord://user@host:1", "is no key"),
        ("concord://user:secret@host:1", "is no key"),
        ("concord://@host:1", "is no key"),
        ("concord://KEY@host:1/path", "goes on after host and port"),
        ("concord://KEY@host:1?x", "goes on after host and port"),
        ("concord://KEY@host:1#x", "goes on after host and port"),
        ("concord://KEY@host:1//", "goes on after host and port"),
        ("concord://KEY@host:0", "\"0\" is no port"),
        ("concord://KEY@host:", "\"\" is no port"),
        ("concord://KEY@host:65536", "\"65536\" is no port"),
        ("concord://KEY@host:+1", "\"+1\" is no port"),
        ("concord://KEY@host:seven", "\"seven\" is no port"),
        ("concord://KEY@::1:7701", "in brackets"),
        ("concord://KEY@[::1:7701", "is no host"),
        ("concord://KEY@[::1]7701", "is no host"),
        ("concord://KEY@[fe80::1%eth0]:1", "is no host"),
        ("concord://KEY@1.2.3:1", "\"1.2.3\" is no host"),
        ("concord://KEY@256.1.1.1:1", "is no host"),
        ("concord://KEY@0x7f000001:1", "is no host"),
        ("concord://KEY@1:7701", "is no host"),
        ("concord://KEY@*:7701", "is no host"),
        ("concord://KEY@a..b:1", "is no host"),
        ("concord://KEY@.:1", "is no host"),
        ("concord://KEY@b\u{fc}ro:1", "is no host"),
        (label.as_str(), "is no host"),
        (long.as_str(), "at most 384 bytes"),
    ] {
        let text = &*with_key(text);
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
        let text = format!("concord://{host}:7701");
        let refused = Address::for_others(&text).expect_err(&text).to_string();
        assert!(refused.contains("nobody can connect to"), "{refused}");
    }
    for host in ["10.0.0.7", "[2001:db8::1]", "host", "127.0.0.1"] {
        assert!(Address::for_others(&format!("concord://{host}:1")).is_ok());
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
        let address = Address::for_others(&format!("concord://{host}:1")).unwrap();
        assert_eq!(address.is_loopback(), is_loopback, "{host}");
    }
}
