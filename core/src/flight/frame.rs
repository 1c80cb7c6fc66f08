//! Frames: how a payload is found again, and whether it is what was written.
//!
//! ```text
//!  len: u24, little-endian │ check: u8 │ crc: u32, little-endian │ payload: len bytes
//! ```
//!
//! `check` guards the length alone. Without it a damaged length would look like a frame that the
//! end of the file cut off, and everything behind the damage would be dropped without a word.

use alloc::vec::Vec;

/// Bytes before the payload.
pub(super) const HEADER: usize = 8;
/// Bytes of the longest payload: what three bytes can say.
pub(super) const PAYLOAD_MAX: usize = 0xff_ffff;
/// What the check byte differs by from the length's bytes, so that zeros are no frame.
const CHECK: u8 = 0xa5;

/// What stands at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut<'a> {
    /// A frame with this payload.
    Whole(&'a [u8]),
    /// Nothing at all.
    End,
    /// The beginning of a frame, or the zeros that a crash leaves behind.
    Torn,
    /// Something that was written otherwise.
    Damaged,
}

/// Append one frame. A payload that is too long for one is left empty, which nobody understands:
/// better than a frame that swallows what follows.
pub(super) fn append(out: &mut Vec<u8>, payload: &[u8]) {
    let payload = if payload.len() <= PAYLOAD_MAX { payload } else { &[] };
    let [a, b, c, ..] = payload.len().to_le_bytes();
    out.extend_from_slice(&[a, b, c, check([a, b, c])]);
    out.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// What stands at the front of `bytes`.
pub(super) fn cut(bytes: &[u8]) -> Cut<'_> {
    if bytes.is_empty() {
        return Cut::End;
    }
    let Some(([a, b, c, given], rest)) = bytes.split_first_chunk() else {
        return Cut::Torn;
    };
    if *given != check([*a, *b, *c]) {
        let blank = bytes.iter().all(|byte| *byte == 0);
        return if blank { Cut::Torn } else { Cut::Damaged };
    }
    let len = usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16;
    let Some((crc, rest)) = rest.split_first_chunk() else {
        return Cut::Torn;
    };
    let Some(payload) = rest.get(..len) else {
        return Cut::Torn;
    };
    if crc32fast::hash(payload) == u32::from_le_bytes(*crc) {
        Cut::Whole(payload)
    } else if is_cut_off(payload, &rest[len..]) {
        Cut::Torn
    } else {
        Cut::Damaged
    }
}

/// Whether a crash has left zeros from somewhere inside a payload to the end of the file: pages
/// that never reached the disk. At least another frame would have fitted behind it, so that a
/// damaged last frame is not taken for one.
fn is_cut_off(payload: &[u8], behind: &[u8]) -> bool {
    payload.last() == Some(&0) && behind.len() >= HEADER && behind.iter().all(|byte| *byte == 0)
}

fn check([a, b, c]: [u8; 3]) -> u8 {
    a ^ b ^ c ^ CHECK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        append(&mut out, payload);
        out
    }

    #[test]
    fn a_frame_is_these_bytes() {
        // The CRC-32 of "123456789" is cbf43926, by the catalogue of CRC algorithms.
        assert_eq!(framed(b"123456789"), *b"\x09\0\0\xac\x26\x39\xf4\xcb123456789");
        assert_eq!(framed(b""), *b"\0\0\0\xa5\0\0\0\0");
        assert_eq!(framed(&[7; 0x1_0203])[..4], [3, 2, 1, 0xa5]);
        assert_eq!(cut(&framed(b"123456789")), Cut::Whole(b"123456789"));
        assert_eq!(cut(&framed(&[7; 0x1_0203])), Cut::Whole(&[7; 0x1_0203]));
    }

    #[test]
    fn what_ends_early_is_torn_and_what_is_changed_is_damaged() {
        let frame = framed(b"hello");
        assert_eq!(cut(b""), Cut::End);
        for end in 1..frame.len() {
            assert_eq!(cut(&frame[..end]), Cut::Torn, "{end} bytes");
        }
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(cut(&flipped), Cut::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn pages_that_never_reached_the_disk_are_torn_off() {
        let mut file = framed(&[7; 100]);
        let len = file.len();
        file[60..].fill(0);
        assert_eq!(cut(&file), Cut::Damaged, "it could be a change of its last bytes");
        file.resize(len + HEADER - 1, 0);
        assert_eq!(cut(&file), Cut::Damaged);
        file.resize(len + HEADER, 0);
        assert_eq!(cut(&file), Cut::Torn);
        file[len + 3] = 1;
        assert_eq!(cut(&file), Cut::Damaged, "something was written behind it");
    }

    #[test]
    fn zeros_to_the_end_are_what_a_crash_leaves() {
        assert_eq!(cut(&[0; 100]), Cut::Torn);
        let mut bytes = [0; 100];
        bytes[99] = 1;
        assert_eq!(cut(&bytes), Cut::Damaged);
    }
}
