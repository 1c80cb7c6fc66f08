//! Whom we believe that somebody is who he says he is.

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::sync::Arc;

/// Why no certificate can be verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthoritiesError {
    /// There is none.
    #[error(
        "this host trusts no certificate authority: install its package of them \
         (ca-certificates), or set SSL_CERT_FILE"
    )]
    None,
    /// One that was named is none.
    #[error("a certificate authority that was named is none: {0}")]
    Bad(String),
    /// The library cannot work with what there is.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// How to speak TLS.
#[derive(Clone)]
pub(crate) struct Tls(pub(super) Arc<ClientConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Trust whom this host trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` say otherwise where they are set), or
    /// these authorities alone if there are any. Reads files.
    pub(crate) fn new(authorities: &[Vec<u8>]) -> Result<Tls, AuthoritiesError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            let added = roots.add(CertificateDer::from(authority.clone()));
            added.map_err(|error| AuthoritiesError::Bad(error.to_string()))?;
        }
        if authorities.is_empty() {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "some certificate authorities of this host cannot be read");
            }
            // Hosts keep some that no library takes any more.
            let _ = roots.add_parsable_certificates(found.certs);
        }
        if roots.is_empty() {
            return Err(AuthoritiesError::None);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| AuthoritiesError::Setup(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Tls(Arc::new(config)))
    }
}
