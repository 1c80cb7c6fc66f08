//! The plainest reader of protobuf there is, as a second opinion: whatever it understands, the
//! decoders must understand alike.

/// One field: its number and its value.
pub(crate) type Field<'a> = (u32, Value<'a>);

/// A value by its wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32,
}

/// All fields of a message, in order; `None` where this reader makes no claim: the message is
/// malformed, or has groups in it.
pub(crate) fn of(mut bytes: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number))?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => Value::Fixed64(u64::from_le_bytes(*take(&mut bytes, 8)?.first_chunk()?)),
            2 => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, len)?)
            }
            5 => take(&mut bytes, 4).map(|_| Value::Fixed32)?,
            _ => return None,
        };
        fields.push((number, value));
    }
    Some(fields)
}

/// The values of a field that is bytes; `None` if one of them has another type.
pub(crate) fn all<'a>(fields: &[Field<'a>], wanted: u32) -> Option<Vec<&'a [u8]>> {
    let values = fields.iter().filter(|(number, _)| *number == wanted);
    let values = values.map(|(_, value)| match value {
        Value::Bytes(bytes) => Some(*bytes),
        Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32 => None,
    });
    values.collect()
}

/// The last value of a field; `absent` if there is none.
pub(crate) fn last<'a>(fields: &[Field<'a>], wanted: u32, absent: Value<'a>) -> Value<'a> {
    let mut values = fields.iter().filter(|(number, _)| *number == wanted);
    values.next_back().map_or(absent, |(_, value)| *value)
}

/// Whether every value of a field is a varint.
pub(crate) fn are_varints(fields: &[Field<'_>], wanted: u32) -> bool {
    let mut values = fields.iter().filter(|(number, _)| *number == wanted);
    values.all(|(_, value)| matches!(value, Value::Varint(_)))
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

/// A varint of at most nine bytes: about longer ones readers differ.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..9 {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
