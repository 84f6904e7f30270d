//! What the messages look like to the kernel.

use super::*;
use crate::net::netlink::attributes;

/// The kind and body of each expression of a rule's message.
fn expressions(rule: &[u8]) -> Vec<(String, Vec<u8>)> {
    let body = &rule[HEADER + 4..];
    attributes(attribute(body, 4).unwrap())
        .map(|(_, one)| {
            (
                text(attribute(one, 1).unwrap()),
                attribute(one, 2).unwrap().to_vec(),
            )
        })
        .collect()
}

#[test]
fn only_the_last_change_asks_for_an_acknowledgement() {
    let mut batch = Batch::new();
    batch.table(Family::Ipv4, "t", TABLE_OWNER);
    batch.chain(
        Family::Ipv4,
        "t",
        "c",
        "nat",
        (Hook::Postrouting, 100),
        Verdict::Accept,
    );
    batch.append(Family::Ipv4, "t", "c", &Rule::default().masquerade());
    let bytes = batch.finish();
    let mut rest = &bytes[..];
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
        let kind = u16::from_ne_bytes([rest[4], rest[5]]);
        seen.push((kind, u16::from_ne_bytes([rest[6], rest[7]]) & NLM_F_ACK != 0));
        rest = &rest[length..];
    }
    let expected = [
        (BATCH_BEGIN, false),
        (NEW_TABLE, false),
        (NEW_CHAIN, false),
        (NEW_RULE, true),
        (BATCH_END, false),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_rule_is_a_list_of_expressions() {
    let rule = Rule::default()
        .interface(Interface::In, true, "uplink")
        .known_connection()
        .verdict(Verdict::Accept)
        .comment("rdock x".into());
    let mut batch = Batch::new();
    let at = batch.bytes.len();
    batch.append(Family::Inet, "t", "c", &rule);
    let found = expressions(&batch.bytes[at..]);
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["meta", "cmp", "ct", "bitwise", "cmp", "immediate"]);
    let data = attribute(&found[1].1, 3)
        .and_then(|data| attribute(data, 1))
        .unwrap();
    assert_eq!(data, b"uplink\0\0\0\0\0\0\0\0\0\0");
    let body = &batch.bytes[at + HEADER + 4..];
    assert_eq!(
        parse_comment(attribute(body, 7).unwrap()).as_deref(),
        Some("rdock x")
    );
}

#[test]
fn a_forward_policy_of_drop_is_seen() {
    let at = [number(1, 2), number(2, 0)].concat();
    let chain = |policy| {
        let body = [
            string(1, "filter"),
            string(3, "FORWARD"),
            nested(4, &at),
            number(5, policy),
        ]
        .concat();
        parse_chain(&[&[2, 0, 0, 0][..], &body].concat()).unwrap()
    };
    assert!(chain(0).drops_forwarded());
    assert!(!chain(1).drops_forwarded());
    let firewalld = |name: &str, base| Chain {
        family: Family::Inet as u8,
        table: "firewalld".into(),
        name: name.into(),
        base,
    };
    assert!(firewalld("filter_FORWARD", Some((2, 1))).drops_forwarded());
    assert!(!firewalld("filter_FORWARD_POLICIES", None).drops_forwarded());
    assert!(parse_chain(&[2, 0, 0]).is_none());
}
