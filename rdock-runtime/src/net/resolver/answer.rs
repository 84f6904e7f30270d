//! Queries and the answers to them, in the format of RFC 1035 with the extension of RFC 6891.

use super::names::Names;
use simple_dns::rdata::{A, AAAA, OPT, PTR, RData};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Seconds that an answer may be kept: containers come and go.
const TTL: u32 = 5;
/// What fits into one datagram everywhere (DNS flag day 2020).
const LARGEST: u16 = 1232;
/// What a client without the extension takes.
const SMALLEST: u16 = 512;

/// What is known about a query.
#[derive(Debug)]
pub(super) enum Answer {
    /// It is none.
    None,
    Bytes(Vec<u8>),
    /// Others may know.
    Elsewhere,
}

pub(super) fn answer(query: &[u8], names: &Names, stream: bool) -> Answer {
    // Less than a header, or a response.
    if query.len() < 12 || query[2] & 0x80 != 0 {
        return Answer::None;
    }
    let Ok(packet) = Packet::parse(query) else {
        return Answer::Bytes(failure(query, RCODE::FormatError));
    };
    if packet.opcode() != OPCODE::StandardQuery {
        return Answer::Bytes(failure(query, RCODE::NotImplemented));
    }
    let [question] = packet.questions.as_slice() else {
        return Answer::Bytes(failure(query, RCODE::FormatError));
    };
    if !matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY) {
        return Answer::Elsewhere;
    }
    let name = question.qname.to_string();
    let name = name.trim_end_matches('.');
    if let Some(ip) = address_of(name) {
        return match names.reverse(ip) {
            Err(()) => Answer::Elsewhere,
            Ok(None) => Answer::Bytes(failure(query, RCODE::NameError)),
            Ok(Some(found)) => {
                let data = Name::new(&found).ok().map(|name| RData::PTR(PTR(name)));
                let data = data.filter(|_| wants(question, TYPE::PTR));
                Answer::Bytes(reply(&packet, question, data.into_iter().collect(), stream))
            }
        };
    }
    let Some(addresses) = names.find(name) else {
        return Answer::Elsewhere;
    };
    let mut data = Vec::new();
    if wants(question, TYPE::A) {
        data.extend(turned(addresses.ipv4).into_iter().map(|ip| {
            RData::A(A {
                address: ip.to_bits(),
            })
        }));
    }
    if wants(question, TYPE::AAAA) {
        data.extend(turned(addresses.ipv6).into_iter().map(|ip| {
            RData::AAAA(AAAA {
                address: ip.to_bits(),
            })
        }));
    }
    Answer::Bytes(reply(&packet, question, data, stream))
}

fn wants(question: &Question<'_>, kind: TYPE) -> bool {
    question.qtype == QTYPE::TYPE(kind) || question.qtype == QTYPE::ANY
}

/// Begins with another one each time, so that replicas share the load.
fn turned<T>(mut all: Vec<T>) -> Vec<T> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    if all.len() > 1 {
        let by = TURN.fetch_add(1, Ordering::Relaxed) % all.len();
        all.rotate_left(by);
    }
    all
}

fn reply(packet: &Packet<'_>, question: &Question<'_>, data: Vec<RData<'_>>, stream: bool) -> Vec<u8> {
    let mut reply = Packet::new_reply(packet.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if packet.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    reply.questions.push(question.clone());
    for data in data {
        let record = ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data);
        reply.answers.push(record);
    }
    let mut limit = usize::from(SMALLEST);
    if let Some(opt) = packet.opt() {
        limit = usize::from(opt.udp_packet_size.clamp(SMALLEST, LARGEST));
        *reply.opt_mut() = Some(OPT {
            opt_codes: Vec::new(),
            udp_packet_size: LARGEST,
            version: 0,
        });
    }
    if stream {
        limit = usize::from(u16::MAX);
    }
    loop {
        match reply.build_bytes_vec_compressed() {
            Ok(bytes) if bytes.len() <= limit => return bytes,
            Ok(_) if !reply.answers.is_empty() => {
                // The client asks again by TCP.
                reply.set_flags(PacketFlag::TRUNCATION);
                reply.answers.pop();
            }
            _ => return Vec::new(),
        }
    }
}

/// An answer without records: the query's header and question with this code.
pub(super) fn failure(query: &[u8], code: RCODE) -> Vec<u8> {
    // The question ends where its name, type and class do; a malformed one is not repeated.
    let end = question_end(query);
    let mut bytes = query[..end.unwrap_or(12).min(query.len())].to_vec();
    bytes[2] = 0x80 | (bytes[2] & 0x79);
    bytes[3] = 0x80 | (code as u8 & 0x0f);
    bytes[4..12].fill(0);
    bytes[5] = u8::from(end.is_some());
    bytes
}

/// Where the first question ends: a name without compression, type and class.
pub(super) fn question_end(message: &[u8]) -> Option<usize> {
    if message.get(4..6)? == [0, 0] {
        return None;
    }
    let mut at = 12;
    loop {
        match usize::from(*message.get(at)?) {
            0 => break,
            length @ 1..64 => at += 1 + length,
            _ => return None,
        }
    }
    (at + 5 <= message.len() && at - 12 < 255).then_some(at + 5)
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn address_of(name: &str) -> Option<IpAddr> {
    let lower = name.to_ascii_lowercase();
    if let Some(rest) = lower.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut labels = rest.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = labels.next()?.parse().ok()?;
        }
        return labels.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let rest = lower.strip_suffix(".ip6.arpa")?;
    let mut bits = 0u128;
    let mut count = 0;
    for label in rest.split('.') {
        let [digit] = label.as_bytes() else { return None };
        let digit = char::from(*digit).to_digit(16)?;
        if count == 32 {
            return None;
        }
        bits |= u128::from(digit) << (4 * count);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
}

#[cfg(test)]
pub(super) fn ask(name: &str, kind: TYPE) -> Vec<u8> {
    let mut query = Packet::new_query(0x1234);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new_unchecked(name);
    query
        .questions
        .push(Question::new(name, kind.into(), CLASS::IN.into(), false));
    query.build_bytes_vec().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::state::{HolderRecord, NetworkDir};
    use crate::net::{NetworkSpec, Networks};
    use crate::process::ProcessIdentity;

    struct Place {
        _root: tempfile::TempDir,
        names: Names,
    }

    fn place(replicas: u8) -> Place {
        let root = tempfile::tempdir().unwrap();
        let spec = NetworkSpec::new("back").subnet(crate::net::SubnetSpec::new("10.9.0.0/16"));
        Networks::new(root.path()).create(&spec).unwrap();
        let (dir, _) = NetworkDir::find(root.path(), "back").unwrap();
        let subnet = "10.9.0.0/16".parse().unwrap();
        let record = crate::net::state::NetworkRecord::new(subnet, Ipv4Addr::new(10, 9, 0, 1), 1500, None);
        dir.write(&record).unwrap();
        let own = ProcessIdentity::current().unwrap();
        for number in 0..replicas {
            let ip = Ipv4Addr::new(10, 9, 1, number);
            let path = dir.holder_path(ip, &number.to_string());
            let mut holder = HolderRecord::new(&"ab".repeat(32), ip, own.clone());
            holder.name = format!("web-{number}");
            holder.aliases = vec!["web".into()];
            holder.ipv6 = Some(format!("fd00::{number:x}").parse().unwrap());
            holder.helper = Some(own.clone());
            dir.write_holder(&path, &holder).unwrap();
        }
        Place {
            _root: root,
            names: Names {
                networks: vec![dir],
                links: Vec::new(),
            },
        }
    }

    fn answered(place: &Place, query: &[u8], stream: bool) -> Vec<u8> {
        match answer(query, &place.names, stream) {
            Answer::Bytes(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    fn addresses(bytes: &[u8]) -> Vec<Ipv4Addr> {
        let packet = Packet::parse(bytes).unwrap();
        assert_eq!((packet.id(), packet.rcode()), (0x1234, RCODE::NoError));
        let of = |record: &ResourceRecord<'_>| match &record.rdata {
            RData::A(a) => Ipv4Addr::from_bits(a.address),
            other => panic!("{other:?}"),
        };
        packet.answers.iter().map(of).collect()
    }

    #[test]
    fn names_aliases_and_ids_in_any_case_and_with_the_network() {
        let place = place(3);
        for name in ["web-1", "WEB-1", "web-1.back", "Web-1.BACK"] {
            assert_eq!(
                addresses(&answered(&place, &ask(name, TYPE::A), false)),
                [Ipv4Addr::new(10, 9, 1, 1)]
            );
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..12 {
            let all = addresses(&answered(&place, &ask("web", TYPE::A), false));
            assert_eq!(all.len(), 3);
            seen.insert(all[0]);
        }
        assert!(seen.len() > 1, "the first answer changes");
        assert_eq!(
            addresses(&answered(&place, &ask("abababababab", TYPE::A), false)).len(),
            3
        );
        let packet = answered(&place, &ask("web-2", TYPE::AAAA), false);
        assert_eq!(Packet::parse(&packet).unwrap().answers.len(), 1);
        // A name that is known has no other records, which is no error.
        let packet = answered(&place, &ask("web-2", TYPE::MX), false);
        let packet = Packet::parse(&packet).unwrap();
        assert_eq!((packet.answers.len(), packet.rcode()), (0, RCODE::NoError));
        for other in ["example.com", "web-9", "back", ".back", "web-1.other"] {
            let answer = answer(&ask(other, TYPE::A), &place.names, false);
            assert!(matches!(answer, Answer::Elsewhere), "{other}: {answer:?}");
        }
    }

    #[test]
    fn addresses_lead_back_to_names() {
        let place = place(2);
        let packet = answered(&place, &ask("1.1.9.10.in-addr.arpa", TYPE::PTR), false);
        let packet = Packet::parse(&packet).unwrap();
        let RData::PTR(PTR(name)) = &packet.answers[0].rdata else {
            panic!("{packet:?}")
        };
        assert_eq!(name.to_string(), "web-1.back");
        let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        let packet = answered(&place, &ask(six, TYPE::PTR), false);
        assert_eq!(Packet::parse(&packet).unwrap().answers.len(), 1);
        // Ours, and nobody has it: the outside is not asked.
        let packet = answered(&place, &ask("9.9.9.10.in-addr.arpa", TYPE::PTR), false);
        assert_eq!(Packet::parse(&packet).unwrap().rcode(), RCODE::NameError);
        let other = answer(&ask("8.8.8.8.in-addr.arpa", TYPE::PTR), &place.names, false);
        assert!(matches!(other, Answer::Elsewhere));
    }

    #[test]
    fn what_does_not_fit_is_cut_and_comes_whole_by_tcp() {
        let place = place(200);
        let cut = answered(&place, &ask("web", TYPE::A), false);
        assert!(cut.len() <= 512);
        assert!(Packet::parse(&cut).unwrap().has_flags(PacketFlag::TRUNCATION));
        assert_eq!(
            addresses(&answered(&place, &ask("web", TYPE::A), true)).len(),
            200
        );
    }

    #[test]
    fn malformed_queries_are_answered_or_dropped() {
        let place = place(1);
        let good = ask("web", TYPE::A);
        for end in 0..good.len() {
            let _ = answer(&good[..end], &place.names, false);
        }
        let mut response = good.clone();
        response[2] |= 0x80;
        assert!(matches!(answer(&response, &place.names, false), Answer::None));
        // A name that points at itself.
        let mut looped = good[..12].to_vec();
        looped.extend([0xc0, 12, 0, 1, 0, 1]);
        let failed = answered(&place, &looped, false);
        assert_eq!((failed.len(), failed[3] & 0x0f), (12, 1));
        let failed = failure(&good, RCODE::NameError);
        let packet = Packet::parse(&failed).unwrap();
        assert_eq!((packet.questions.len(), packet.rcode()), (1, RCODE::NameError));
    }

    proptest::proptest! {
        #[test]
        fn rt_user_stack_fuzz_any_bytes_are_no_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let names = Names::default();
            let _ = answer(&bytes, &names, false);
            let _ = question_end(&bytes);
            if bytes.len() >= 12 {
                failure(&bytes, RCODE::ServerFailure);
            }
        }
    }
}
