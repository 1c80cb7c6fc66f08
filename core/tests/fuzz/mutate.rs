//! Makes inputs out of other inputs, all from a seed.

/// Lengths, counts and codes at which something may change.
const NUMBERS: [u64; 16] = [
    0,
    1,
    32,
    49,
    50,
    51,
    100,
    101,
    200,
    256,
    1_024,
    4_096,
    8_192,
    1 << 31,
    u64::MAX >> 1,
    u64::MAX,
];

/// Bytes that mean something in many formats.
const BYTES: [u8; 8] = [0, 1, 0x0a, 0x12, 0x7f, 0x80, 0xfe, 0xff];

/// Numbers out of a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).unwrap_or(u64::MAX);
        usize::try_from(self.next().checked_rem(n).unwrap_or(0)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// A range inside `len`, mostly short.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let at = self.below(len);
        let longest = if self.below(4) == 0 { len } else { 16 };
        at..at + self.below(longest.min(len - at) + 1)
    }
}

/// An input like `input`, changed in one to five places, with parts of `other` in it.
pub(crate) fn mutated(input: &[u8], other: &[u8], len_max: usize, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=dice.below(5) {
        change(&mut bytes, other, dice);
        // What grows beyond the limit loses its end, so that limits in the middle are met.
        bytes.truncate(len_max);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len());
    let range = dice.range(bytes.len());
    match dice.below(12) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
        1 if !bytes.is_empty() => bytes[at] = dice.byte(),
        2 if !bytes.is_empty() => bytes[at] = dice.one_of(&BYTES),
        3 if !bytes.is_empty() => {
            bytes[at] = bytes[at].wrapping_add(dice.one_of(&[1, 2, 255, 254]));
        }
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(range)),
        6 => {
            let part = bytes[range].to_vec();
            insert(bytes, at, &part);
        }
        7 => {
            let part = bytes[range].repeat(2 + dice.below(60));
            insert(bytes, at, &part);
        }
        8 => {
            let part = other[dice.range(other.len())].to_vec();
            insert(bytes, at, &part);
        }
        9 => {
            let part = &other[dice.range(other.len())];
            for (byte, new) in bytes[at..].iter_mut().zip(part) {
                *byte = *new;
            }
        }
        10 => {
            let mut buffer = unsigned_varint::encode::u64_buffer();
            let number = dice.one_of(&NUMBERS).wrapping_add(dice.one_of(&[0, 0, 1, u64::MAX]));
            insert(bytes, at, unsigned_varint::encode::u64(number, &mut buffer));
        }
        _ => {
            let part: Vec<u8> = (0..=dice.below(8)).map(|_| dice.byte()).collect();
            insert(bytes, at, &part);
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    drop(bytes.splice(at..at, part.iter().copied()));
}
