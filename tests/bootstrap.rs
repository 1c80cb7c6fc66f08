//! Nodes that start from lists on the web, on every runtime: over TLS, from servers that misbehave, and
//! from what was kept.

use futures::StreamExt;
use futures_rustls::TlsAcceptor;
use futures_rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use futures_rustls::rustls::ServerConfig;
use portolan_runtime::bootstrap::{
    BootstrapConfig, BootstrapNews, DOCUMENT_BYTES_MAX, DocumentError, FetchError, SourceError, Url,
};
use portolan_runtime::names::NamesConfig;
use portolan_runtime::{Node, identity};
use portolan_tests::dns_server::{DnsServer, Zone};
use portolan_tests::lab::{Lab, soon};
use portolan_tests::portolan_peer::on_one_host;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

portolan_tests::on_every_runtime! {
    #[tokio::test(flavor = "multi_thread")]
    a_list_over_tls_by_a_name_leads_to_its_peers,
    a_certificate_of_nobody_known_is_refused,
    what_servers_do_wrong_is_named,
    the_last_good_list_serves_when_nobody_does;
}

/// What a server of a test answers with, whole.
fn response(head: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{head}\r\n{body}", body.len())
}

/// Answer every request with the same, and close. Runs on tokio, like all that the tests themselves do.
async fn serve(answer: String, tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let addr = listener.local_addr().expect("a socket");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (answer, tls) = (answer.clone(), tls.clone());
            tokio::spawn(async move {
                // Whoever leaves in the middle is answered no more.
                let _ = match tls {
                    Some(tls) => match tls.accept(tcp.compat()).await {
                        Ok(stream) => say(stream.compat(), &answer).await,
                        Err(_) => Ok(()),
                    },
                    None => say(tcp, &answer).await,
                };
            });
        }
    });
    addr
}

async fn say<T>(mut stream: T, answer: &str) -> std::io::Result<()>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// A certificate for a name, and what speaks TLS with it.
fn tls(name: &str) -> (Vec<u8>, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let der = made.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.key_pair.serialize_der()));
    let provider = futures_rustls::rustls::crypto::aws_lc_rs::default_provider();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("its own versions")
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], key)
        .expect("a key that fits");
    (der.to_vec(), TlsAcceptor::from(Arc::new(config)))
}

async fn node<L: Lab>(lab: &L, names: NamesConfig) -> Node<L::Runtime> {
    let builder = Node::builder(lab.runtime(), identity::generate()).config(on_one_host());
    let builder = builder.names(names).listen("/ip4/127.0.0.1/tcp/0".parse().expect("an address"));
    builder.start().await.expect("a free port")
}

async fn list_of<L: Lab>(of: &Node<L::Runtime>) -> String {
    let addr = soon(of.listeners()).await.remove(0);
    format!(r#"{{"format": "portolan-bootstrap/1", "peers": [{{"addrs": ["{addr}"]}}]}}"#)
}

fn config(urls: &[String]) -> BootstrapConfig {
    let mut config = BootstrapConfig::default();
    config.urls = urls.iter().map(|url| url.parse().expect("a URL")).collect();
    config.allow_private = true;
    config
}

/// All that happens, in words.
async fn course<L: Lab>(node: &Node<L::Runtime>, config: BootstrapConfig) -> Vec<String> {
    let mut bootstrap = node.bootstrap(config);
    let mut said = Vec::new();
    while let Some(news) = soon(bootstrap.next()).await {
        said.push(match news {
            BootstrapNews::Listed { list, .. } => format!("listed {}", list.peers.len()),
            BootstrapNews::Failed { error, .. } => format!("failed: {error}"),
            BootstrapNews::Remembered { list, .. } => format!("remembered {}", list.peers.len()),
            BootstrapNews::Dialling { .. } => "dialling".into(),
            BootstrapNews::Dialled { result: Ok(_), .. } => "connected".into(),
            BootstrapNews::Dialled { result: Err(error), .. } => format!("not reached: {error}"),
            other @ (BootstrapNews::Forgetful(_) | _) => {
                format!("{other:?}")
            }
        });
    }
    soon(bootstrap.close()).await;
    said
}

async fn a_list_over_tls_by_a_name_leads_to_its_peers<L: Lab>(lab: &L) {
    let target = node(lab, NamesConfig::default()).await;
    let (authority, acceptor) = tls("boot.example");
    let addr = serve(response("", &list_of::<L>(&target).await), Some(acceptor)).await;
    let server = DnsServer::start(Zone::default().ip("boot.example", "127.0.0.1"));
    let mut names = NamesConfig::default();
    names.servers = vec![server.addr()];
    let starter = node(lab, names).await;
    let mut config = config(&[format!("https://boot.example:{}", addr.port())]);
    config.authorities = vec![authority];
    let said = course::<L>(&starter, config).await;
    assert_eq!(said, ["listed 1", "dialling", "connected"]);
    let connections = soon(starter.connections()).await;
    assert!(connections.iter().any(|one| one.peer == target.peer_id()), "{connections:?}");
}

async fn a_certificate_of_nobody_known_is_refused<L: Lab>(lab: &L) {
    let (_, acceptor) = tls("boot.example");
    let addr = serve(response("", "{}"), Some(acceptor)).await;
    let starter = node(lab, NamesConfig::default()).await;
    // Neither an authority that did not sign it, nor a name that it does not bear.
    let (other, _) = tls("boot.example");
    let mut config = config(&[]);
    config.authorities = vec![other];
    let url: Url = format!("https://127.0.0.1:{}", addr.port()).parse().expect("a URL");
    let error = soon(starter.fetch_list(&url, &config)).await.expect_err("nobody vouches");
    assert!(matches!(error, SourceError::Fetch(FetchError::Tls { .. })), "{error}");
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let port = plain.local_addr().expect("a socket").port();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = plain.accept().await {
            // It speaks first, and something else.
            let _ = tcp.write_all(b"220 mail.example\r\n").await;
        }
    });
    let url: Url = format!("https://127.0.0.1:{port}").parse().expect("a URL");
    let error = soon(starter.fetch_list(&url, &config)).await.expect_err("no TLS at all");
    assert!(matches!(error, SourceError::Fetch(FetchError::Tls { .. })), "{error}");
}

async fn what_servers_do_wrong_is_named<L: Lab>(lab: &L) {
    let starter = node(lab, NamesConfig::default()).await;
    let wanted = config(&[]);
    let of = async |answer: String| {
        let addr = serve(answer, None).await;
        let url: Url = format!("http://{addr}").parse().expect("a URL");
        soon(starter.fetch_list(&url, &wanted)).await.expect_err("it is of no use")
    };
    let long = " ".repeat(DOCUMENT_BYTES_MAX + 1);
    let fetch = |error| SourceError::Fetch(error);
    let max = DOCUMENT_BYTES_MAX;
    assert_eq!(of(response("", &long)).await, fetch(FetchError::TooLong { max }));
    // The same in chunks, with no end.
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000)).repeat(5);
    let endless = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
    assert_eq!(of(endless).await, fetch(FetchError::TooLong { max }));
    let moved = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(of(moved.into()).await, fetch(FetchError::Status { code: 302 }));
    let coded = response("Content-Encoding: gzip\r\n", "x");
    assert_eq!(of(coded).await, fetch(FetchError::Encoded));
    for broken in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", ""] {
        let error = of(broken.into()).await;
        assert!(matches!(error, SourceError::Fetch(FetchError::Http(_))), "{broken:?}: {error}");
    }
    let headers = response(&"X: y\r\n".repeat(1_000), "{}");
    assert!(matches!(of(headers).await, SourceError::Fetch(FetchError::Http(_))));
    let error = of(response("", "[1, 2]")).await;
    assert!(matches!(error, SourceError::Document(DocumentError::Junk(_))), "{error}");
    let elsewhere: Url = "http://192.0.2.1/".parse().expect("a URL");
    let error = soon(starter.fetch_list(&elsewhere, &wanted)).await;
    assert_eq!(error, Err(SourceError::Fetch(FetchError::Insecure)));
}

async fn the_last_good_list_serves_when_nobody_does<L: Lab>(lab: &L) {
    let folder = std::env::temp_dir().join(format!(
        "portolan-lists-{}-{}",
        std::process::id(),
        std::any::type_name::<L>().rsplit(':').next().unwrap_or_default()
    ));
    std::fs::create_dir_all(&folder).expect("a writable directory");
    let target = node(lab, NamesConfig::default()).await;
    let addr = serve(response("", &list_of::<L>(&target).await), None).await;
    let good = format!("http://{addr}/good");
    let mut wanted = config(std::slice::from_ref(&good));
    wanted.cache = Some(folder.join("lists.json"));
    let starter = node(lab, NamesConfig::default()).await;
    assert_eq!(course::<L>(&starter, wanted.clone()).await, ["listed 1", "dialling", "connected"]);
    // The same URL leads nowhere now: the port is somebody's who says nothing.
    let mut text = std::fs::read_to_string(folder.join("lists.json")).expect("it was kept");
    let gone = TcpStream::connect(addr).await.and_then(|tcp| tcp.local_addr()).expect("a port");
    text = text.replace(&addr.to_string(), &gone.to_string());
    std::fs::write(folder.join("lists.json"), text).expect("a writable file");
    wanted.urls = vec![good.replace(&addr.to_string(), &gone.to_string()).parse().expect("a URL")];
    let late = node(lab, NamesConfig::default()).await;
    let said = course::<L>(&late, wanted).await;
    assert!(said[0].starts_with("failed: cannot connect"), "{said:?}");
    assert_eq!(said[1..], ["remembered 1", "dialling", "connected"]);
    let _ = std::fs::remove_dir_all(folder);
}
