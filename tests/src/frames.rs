//! Frames on bare streams, for peers that follow a script.

use bytes::{Bytes, BytesMut};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use portolan_core::Framing;
use portolan_core::wire::framing;
use std::io;

/// Write one message and send it off.
///
/// # Errors
/// If the stream has ended, or the rule forbids the message.
pub async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    framing: Framing,
    body: &[u8],
) -> io::Result<()> {
    let mut frame = BytesMut::new();
    framing::encode(framing, body, &mut frame).map_err(io::Error::other)?;
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Announce a message of `len` bytes and send none of them.
///
/// # Errors
/// If the stream has ended, or the rule forbids such a message.
pub async fn announce_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    framing: Framing,
    len: usize,
) -> io::Result<()> {
    let mut frame = BytesMut::new();
    framing::encode(framing, &vec![0; len], &mut frame).map_err(io::Error::other)?;
    stream.write_all(&frame[..frame.len() - len]).await?;
    stream.flush().await
}

/// Read one message. What came after it stays in `buffer`.
///
/// # Errors
/// If the stream ends before the message does, or the message breaks the rule.
pub async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    framing: Framing,
    buffer: &mut BytesMut,
) -> io::Result<Bytes> {
    loop {
        if let Some(body) = framing::split(framing, buffer).map_err(io::Error::other)? {
            return Ok(body);
        }
        let mut chunk = [0; 1_024];
        match stream.read(&mut chunk).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => buffer.extend_from_slice(&chunk[..read]),
        }
    }
}
