//! Bytes by RFC 6887, and what is refused.

use super::*;
use crate::wire::MapTransport;
use alloc::vec;
use core::net::IpAddr;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2));
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
const NONCE: Nonce = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

fn map() -> MapRequest {
    MapRequest::new(NONCE, MapTransport::Tcp, 4001, unspecified(CLIENT))
}

fn of(map: MapRequest) -> Request {
    Request::map(CLIENT, 7_200, map)
}

/// The request of [`map`], with these bytes after it.
fn with(options: &[u8]) -> Vec<u8> {
    [&of(map()).encode(), options].concat()
}

fn decoded(datagram: &[u8]) -> Result<MapRequest, RequestError> {
    match Request::decode(datagram)?.body {
        RequestBody::Map(map) => Ok(map),
        RequestBody::Announce => panic!("another opcode"),
    }
}

#[test]
fn a_map_request_has_the_bytes_of_the_rfc() {
    let mut expected = vec![2, 1, 0, 0, 0, 0, 0x1c, 0x20];
    expected.extend_from_slice(&MAPPED);
    expected.extend_from_slice(&[192, 168, 1, 2]);
    expected.extend_from_slice(&NONCE);
    expected.extend_from_slice(&[6, 0, 0, 0, 0x0f, 0xa1, 0, 0]);
    expected.extend_from_slice(&MAPPED);
    expected.extend_from_slice(&[0, 0, 0, 0]);
    assert_eq!(of(map()).encode(), expected);
    assert_eq!(Request::decode(&expected), Ok(of(map())));
}

#[test]
fn asking_for_the_server_is_a_header() {
    let request = Request::announced(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let mut expected = [0; 24];
    expected[0] = 2;
    expected[23] = 1;
    assert_eq!(request.encode(), expected[..]);
    assert_eq!(Request::decode(&expected), Ok(request));
}

#[test]
fn any_address_keeps_its_family() {
    let v6 = unspecified(Ipv6Addr::LOCALHOST.into());
    assert_eq!(unspecified(CLIENT), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    assert_eq!(v6, IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    assert_eq!(unspecified(mapped.into()), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let mut request = map();
    request.external_ip = v6;
    assert_eq!(of(request).encode()[44..], [0; 16]);
}

#[test]
fn options_are_written_and_read() {
    let mut request = map();
    request.prefer_failure = true;
    request.third_party = Some([192, 168, 1, 9].into());
    request.filters = vec![Filter { prefix_len: 120, port: 7, ip: [192, 0, 2, 0].into() }];
    let bytes = of(request.clone()).encode();
    assert_eq!(bytes[60..64], [1, 0, 0, 16]);
    assert_eq!(bytes[80..84], [2, 0, 0, 0]);
    assert_eq!(bytes[84..92], [3, 0, 0, 20, 0, 120, 0, 7]);
    assert_eq!(bytes.len(), 108);
    assert_eq!(decoded(&bytes), Ok(request.clone()));
    request.filters = vec![request.filters[0]; FILTERS_MAX + 1];
    let bytes = of(request).encode();
    assert!(bytes.len() <= DATAGRAM_MAX, "{} bytes", bytes.len());
    assert_eq!(decoded(&bytes).map(|map| map.filters.len()), Ok(FILTERS_MAX));
}

#[test]
fn unknown_options_are_skipped_if_they_may_be() {
    assert_eq!(decoded(&with(&[128, 0, 0, 3, 1, 2, 3, 0, 255, 0, 0, 0])), Ok(map()));
    assert_eq!(decoded(&with(&[127, 0, 0, 0])), Err(RequestError::Option { option: 127 }));
    let asked = Request::announced(CLIENT).encode();
    let preferring = [&asked[..], &[2, 0, 0, 0]].concat();
    assert_eq!(Request::decode(&preferring), Err(RequestError::Option { option: 2 }));
    let skipped = [&asked[..], &[200, 0, 0, 0]].concat();
    assert_eq!(Request::decode(&skipped), Ok(Request::announced(CLIENT)));
}

#[test]
fn malformed_options_are_told_as_such() {
    let cases: [(u8, &[u8]); 6] = [
        (2, &[2, 0, 0, 4, 0, 0, 0, 0]),
        (2, &[2, 0, 0, 0, 2, 0, 0, 0]),
        (1, &[1, 0, 0, 4, 0, 0, 0, 0]),
        (200, &[200, 0, 0, 5, 0, 0, 0, 0]),
        (200, &[200, 0, 0xff, 0xff]),
        (3, &[3, 0, 0, 20, 0, 129, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (option, bytes) in cases {
        let error = Err(RequestError::MalformedOption { option });
        assert_eq!(decoded(&with(bytes)), error, "{bytes:?}");
    }
}

#[test]
fn a_server_knows_what_to_answer() {
    let good = of(map()).encode();
    let changed = |at: usize, to: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = to;
        Request::decode(&bytes).map_err(|error| error.result_code())
    };
    assert_eq!(changed(0, 1), Err(Some(ResultCode::UnsupportedVersion)));
    assert_eq!(changed(1, 3), Err(Some(ResultCode::UnsupportedOpcode)));
    assert_eq!(changed(1, 0x81), Err(None));
    assert!(changed(2, 9).is_ok(), "what is reserved is not looked at");
    for len in [0, 1, 2, 20, 23, 25, 56, 59] {
        let error = Request::decode(&good[..len]).map_err(|error| error.result_code());
        let expected = (len >= 2).then_some(ResultCode::MalformedRequest);
        assert_eq!(error, Err(expected), "{len} bytes");
    }
    let long = [&good[..], &[128, 0, 0, 0].repeat(261)].concat();
    assert_eq!(Request::decode(&long), Err(RequestError::Length { len: 1_104 }));
    assert!(Request::decode(&long[..DATAGRAM_MAX]).is_ok());
}

#[test]
fn a_map_response_has_the_bytes_of_the_rfc() {
    let map = MapResponse::to(&map(), [203, 0, 113, 9].into(), 5_000);
    let response = Response::new(ResultCode::Success, 120, 7, ResponseBody::Map(map));
    let mut expected = vec![2, 0x81, 0, 0, 0, 0, 0, 120, 0, 0, 0, 7];
    expected.extend_from_slice(&[0; 12]);
    expected.extend_from_slice(&NONCE);
    expected.extend_from_slice(&[6, 0, 0, 0, 0x0f, 0xa1, 0x13, 0x88]);
    expected.extend_from_slice(&MAPPED);
    expected.extend_from_slice(&[203, 0, 113, 9]);
    assert_eq!(response.encode(), expected);
    assert_eq!(Response::decode(&expected), Ok(response));
    // Options of a response are skipped, be they known, mandatory or malformed.
    for options in [&[2, 0, 0, 0][..], &[99, 0, 0, 0], &[1, 0, 0xff, 0xff]] {
        assert_eq!(Response::decode(&[&expected, options].concat()), Ok(response));
    }
    // A success that is cut is none.
    assert_eq!(Response::decode(&expected[..56]), Err(ResponseError::Length { len: 56 }));
}

#[test]
fn an_error_need_not_have_the_rest() {
    let bare = ResponseBody::Bare { opcode: 1 };
    let response = Response::new(ResultCode::NoResources, 30, 7, bare);
    assert_eq!(response.encode().len(), 24);
    assert_eq!(Response::decode(&response.encode()), Ok(response));
    let unknown = ResponseBody::Bare { opcode: 0x7f };
    let response = Response::new(ResultCode::Other(200), 0, 7, unknown);
    assert_eq!(Response::decode(&response.encode()), Ok(response));
    let restarted = Response::new(ResultCode::Success, 0, 0, ResponseBody::Announce);
    assert_eq!(Response::decode(&restarted.encode()), Ok(restarted));
}

#[test]
fn what_is_no_response_has_its_error() {
    let mut bytes = Response::new(ResultCode::Success, 0, 0, ResponseBody::Announce).encode();
    for len in [0, 1, 2, 20, 23] {
        assert_eq!(Response::decode(&bytes[..len]), Err(ResponseError::Length { len }));
    }
    assert_eq!(Response::decode(&of(map()).encode()), Err(ResponseError::NotResponse));
    let nat_pmp = [0, 0, 0, 1, 0, 0, 0, 7];
    assert_eq!(Response::decode(&nat_pmp), Err(ResponseError::Version { version: 0 }));
    let mut peer = bytes.split_off(0).to_vec();
    peer[1] = 0x82;
    assert_eq!(Response::decode(&peer), Err(ResponseError::Opcode { opcode: 2 }));
}

#[test]
fn a_refusal_is_the_request_under_another_header() {
    let code = ResultCode::AddressMismatch;
    let refused = refusal(&of(map()).encode(), code, 0, 9).expect("an answer");
    let response = Response::decode(&refused).expect("a response");
    assert_eq!((response.code, response.lifetime_s, response.epoch), (code, 0, 9));
    let ResponseBody::Map(read) = response.body else { panic!("{response:?}") };
    assert_eq!((read.nonce, read.internal_port), (NONCE, 4001));
    for (request, len) in [(vec![9, 1], 24), (vec![2; 25], 28), (vec![2; 2_000], 1_100)] {
        let refused = refusal(&request, code, 0, 0).expect("an answer");
        assert_eq!(refused.len(), len);
        assert!(Response::decode(&refused).is_ok());
    }
    assert_eq!(refusal(&[2], code, 0, 0), None);
    assert_eq!(refusal(&refused, code, 0, 0), None);
}

#[test]
fn codes_are_their_numbers() {
    for code in 0..=u8::MAX {
        assert_eq!(ResultCode::from_code(code).code(), code);
        assert_eq!(ResultCode::from_code(code).is_short_error(), [7, 8, 10].contains(&code));
    }
}
