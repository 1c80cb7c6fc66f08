//! SOAP as a router reads and writes it.

use std::fmt::Write;

/// A code of UPnP with its text.
pub(super) type Fault = (u16, &'static str);

pub(super) const INVALID_ACTION: Fault = (401, "Invalid Action");
pub(super) const INVALID_ARGS: Fault = (402, "Invalid Args");
pub(super) const ACTION_FAILED: Fault = (501, "Action Failed");
pub(super) const NOT_AUTHORIZED: Fault = (606, "Action not authorized");
pub(super) const NO_SUCH_ENTRY: Fault = (714, "NoSuchEntryInArray");

/// The text of a code that a profile names.
pub(super) const fn fault(code: u16) -> Fault {
    match code {
        402 => INVALID_ARGS,
        501 => ACTION_FAILED,
        606 => NOT_AUTHORIZED,
        724 => (724, "SamePortValuesRequired"),
        725 => (725, "OnlyPermanentLeasesSupported"),
        728 => (728, "NoPortMapsAvailable"),
        code => (code, "Failed"),
    }
}

/// What an action was called with, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments(Vec<(String, String)>);

impl Arguments {
    /// The arguments of an action, if the envelope has it.
    pub(super) fn read(body: &str, action: &str) -> Option<Arguments> {
        let at = body.find(&format!(":{action}"))?;
        let open = at + body[at..].find('>')?;
        if body[..open].ends_with('/') {
            return Some(Arguments::default());
        }
        let inner = &body[open + 1..];
        let close = inner.find(&format!(":{action}>"))?;
        let mut rest = &inner[..inner[..close].rfind("</")?];
        let mut read = Vec::new();
        while let Some(start) = rest.find('<') {
            let end = start + rest[start..].find('>')?;
            let name = &rest[start + 1..end];
            if let Some(name) = name.strip_suffix('/') {
                read.push((name.trim().to_owned(), String::new()));
                rest = &rest[end + 1..];
                continue;
            }
            let name = name.split_whitespace().next()?.to_owned();
            let close = format!("</{name}>");
            let after = &rest[end + 1..];
            let len = after.find(&close)?;
            read.push((name, unescaped(&after[..len])));
            rest = &after[len + close.len()..];
        }
        Some(Arguments(read))
    }

    /// The value of an argument.
    pub(super) fn text(&self, name: &str) -> Result<&str, Fault> {
        let found = self.0.iter().find(|(one, _)| one == name);
        found.map(|(_, value)| value.as_str()).ok_or(INVALID_ARGS)
    }

    /// The value of an argument that is a number.
    pub(super) fn number<N: std::str::FromStr>(&self, name: &str) -> Result<N, Fault> {
        self.text(name)?.trim().parse().map_err(|_| INVALID_ARGS)
    }

    /// Whether they are these, in this order.
    pub(super) fn are(&self, names: &[&str]) -> bool {
        self.0.iter().map(|(name, _)| name.as_str()).eq(names.iter().copied())
    }
}

fn unescaped(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    text.replace("&apos;", "'").replace("&amp;", "&")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The response to an action.
pub(super) fn response(urn: &str, action: &str, values: &[(&str, String)]) -> String {
    let mut text = envelope_begin();
    let _ = write!(text, "<u:{action}Response xmlns:u=\"{urn}\">");
    for (name, value) in values {
        let _ = write!(text, "<{name}>{}</{name}>", escaped(value));
    }
    let _ = write!(text, "</u:{action}Response></s:Body></s:Envelope>\r\n");
    text
}

/// A fault.
pub(super) fn fault_response((code, words): Fault) -> String {
    format!(
        "{}<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>\
         <UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>{code}</errorCode>\
         <errorDescription>{words}</errorDescription></UPnPError></detail></s:Fault></s:Body>\
         </s:Envelope>\r\n",
        envelope_begin(),
    )
}

fn envelope_begin() -> String {
    "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
     s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_their_order() {
        let body = "<?xml version=\"1.0\"?><s:Envelope><s:Body><u:Add xmlns:u=\"urn:x\">\
            <A></A><B>1 &amp; 2</B>\n<C/></u:Add></s:Body></s:Envelope>";
        let read = Arguments::read(body, "Add").expect("the action is there");
        assert!(read.are(&["A", "B", "C"]) && !read.are(&["B", "A", "C"]));
        assert_eq!(read.text("B"), Ok("1 & 2"));
        assert_eq!(read.text("D"), Err(INVALID_ARGS));
        assert_eq!(read.number::<u16>("B"), Err(INVALID_ARGS));
        assert_eq!(Arguments::read(body, "Delete"), None);
        let empty = "<e><m:Ask xmlns:m=\"urn:x\"/></e>";
        assert_eq!(Arguments::read(empty, "Ask"), Some(Arguments::default()));
    }
}
