//! Where the processor's time goes: a relay under `perf`, with one circuit.

use super::child::{Allowance, Kind};
use super::process::Relay;
use super::{Fault, load, rounded};
use portolan_core::Transport;
use serde_json::{Value, json};
use std::process::Command;

/// What a function belongs to, by a part of its name; the first that fits.
const PARTS: [(&str, &[&str]); 9] = [
    ("kernel", &["[k]"]),
    ("crypto", &["chacha", "poly1305", "ChaCha", "ring_core", "aws_lc", "aead", "snow", "aes_"]),
    ("noise framing", &["libp2p_noise", "asynchronous_codec"]),
    ("yamux", &["yamux"]),
    ("quic", &["quinn"]),
    ("copying and clearing memory", &["memcpy", "memmove", "memset"]),
    ("allocation", &["malloc", "free", "calloc", "realloc", "Counting", "_int_", "__rust_alloc"]),
    ("driver, bridge and core", &["portolan", "libp2p_relay", "libp2p_swarm"]),
    (
        "executor and channels",
        &["tokio", "async_", "futures", "mio", "polling", "concurrent_queue"],
    ),
];
/// Functions that are named one by one, number.
const NAMED: usize = 20;

/// The shares of samples, one each millisecond of processor time.
pub(crate) async fn measure(
    kind: Kind,
    transport: Transport,
    bytes: usize,
) -> Result<Value, Fault> {
    let folder = std::env::temp_dir().join(format!("bench-relay-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let out = folder.join(kind.name());
    let wrapper = ["perf", "record", "--quiet", "--event=cpu-clock", "--freq=999", "--output"];
    let mut wrapper: Vec<String> = wrapper.map(str::to_owned).into();
    wrapper.extend([out.display().to_string(), "--".into()]);
    let relay = Relay::start(kind, Allowance::Much, &wrapper)?;
    load::exercise(&relay, transport, bytes).await?;
    relay.end()?;
    let words = ["report", "--stdio", "--sort=sym", "--field-separator=|", "--input"];
    let read = Command::new("perf").args(words).arg(&out).output()?;
    std::fs::remove_dir_all(&folder)?;
    shares(&String::from_utf8_lossy(&read.stdout))
}

/// What `perf report` printed, by part.
fn shares(text: &str) -> Result<Value, Fault> {
    let functions: Vec<(f64, &str)> = text.lines().filter_map(counted).collect();
    if functions.is_empty() {
        return Err("perf said nothing".into());
    }
    let mut sums: Vec<(&str, f64)> = PARTS.iter().map(|(part, _)| (*part, 0.0)).collect();
    sums.push(("other", 0.0));
    for (share, name) in &functions {
        let fits = |words: &[&str]| words.iter().any(|word| name.contains(word));
        let at = PARTS.iter().position(|(_, words)| fits(words)).unwrap_or(PARTS.len());
        if let Some((_, sum)) = sums.get_mut(at) {
            *sum += share;
        }
    }
    let parts: serde_json::Map<_, _> =
        sums.iter().map(|(part, sum)| ((*part).to_owned(), rounded(*sum).into())).collect();
    let most = functions
        .iter()
        .take(NAMED)
        .map(|(share, name)| json!([rounded(*share), name.chars().take(100).collect::<String>()]));
    Ok(json!({ "percent": parts, "functions": most.collect::<Vec<_>>() }))
}

/// A line with a share in percent, and what it is of.
fn counted(line: &str) -> Option<(f64, &str)> {
    let (share, name) = line.trim_start().split_once('|')?;
    Some((share.trim().trim_end_matches('%').parse().ok()?, name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_summed_by_part() {
        let text = "# Overhead|Symbol\n\
            #\n\
               60.25|[.] ChaCha20_ctr32_avx2\n\
               30.50|[k] copy_user_generic_string\n\
                5.25|[.] __memmove_avx_unaligned_erms\n\
                4.00|[.] something\n";
        let document = shares(text).expect("it can be read");
        assert_eq!(document["percent"]["crypto"], 60.25);
        assert_eq!(document["percent"]["kernel"], 30.5);
        assert_eq!(document["percent"]["copying and clearing memory"], 5.25);
        assert_eq!(document["percent"]["other"], 4.0);
        shares("nothing at all").expect_err("there is no share");
    }
}
