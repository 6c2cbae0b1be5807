//! Connecting: as libpq does it, with rustls. Neither the connection string nor a password in it is ever shown.

use crate::error::CommandError;
use postgres::config::SslMode;
use postgres::{Client, Config};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres_rustls::MakeRustlsConnect;

/// How the server is to be recognised: the `sslmode` of libpq.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recognition {
    /// Not at all: `disable`, `prefer`, `require`.
    None,
    /// By a certificate for its host name: `verify-full`, and `verify-ca`, which is not told apart from it.
    Full,
}

/// Connects.
pub fn connect(url: &str) -> Result<Client, CommandError> {
    let Options { rest, recognition, roots } = options(url);
    let unreadable = || CommandError::Database("the connection string cannot be read".to_owned());
    // What is wrong with it would quote it.
    let mut config: Config = rest.parse().map_err(|_| unreadable())?;
    if recognition == Recognition::Full {
        config.ssl_mode(SslMode::Require);
    }
    if config.get_password().is_none()
        && let Ok(password) = std::env::var("PGPASSWORD")
    {
        config.password(password);
    }
    if config.get_application_name().is_none() {
        config.application_name("lead-audit");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(30));
    }
    let client = config.connect(tls(recognition, roots.as_deref())?)?;
    Ok(client)
}

struct Options {
    rest: String,
    recognition: Recognition,
    roots: Option<String>,
}

/// Takes out the options that the driver does not have: `sslrootcert`, and the modes of `sslmode` that ask for a certificate.
fn options(url: &str) -> Options {
    let mut found = Options { rest: String::new(), recognition: Recognition::None, roots: None };
    let mut keep = |option: &str| match option.split_once('=') {
        Some(("sslmode", "verify-full" | "verify-ca")) => {
            found.recognition = Recognition::Full;
            false
        }
        // libpq's "try without, then with"; "prefer" differs in the order only.
        Some(("sslmode", "allow")) => false,
        Some(("sslrootcert", path)) => {
            found.roots = Some(percent_decoded(path.trim_matches('\'')));
            false
        }
        _ => true,
    };
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let rest = match url.split_once('?') {
        Some((base, query)) if is_url => {
            let kept: Vec<&str> = query.split('&').filter(|option| keep(option)).collect();
            if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) }
        }
        _ if is_url => url.to_owned(),
        // Values with spaces in quotes are put together again as they were.
        _ => url.split(' ').filter(|option| keep(option)).collect::<Vec<_>>().join(" "),
    };
    found.rest = rest;
    found
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        let (byte, after) = match code {
            Some(code) if first == b'%' => (code, &after[2..]),
            _ => (first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn tls(recognition: Recognition, roots: Option<&str>) -> Result<MakeRustlsConnect, CommandError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| CommandError::Database(format!("{what}: {error}"));
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("TLS", &error))?;
    if recognition == Recognition::None {
        let unrecognised = Arc::new(Unrecognised(provider));
        let config = builder.dangerous().with_custom_certificate_verifier(unrecognised).with_no_client_auth();
        return Ok(MakeRustlsConnect::new(config));
    }
    let mut store = RootCertStore::empty();
    match roots {
        Some(path) if path != "system" => {
            let certificates = CertificateDer::pem_file_iter(Path::new(path)).map_err(|error| failed(path, &error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| failed(path, &error))?;
                store.add(certificate).map_err(|error| failed(path, &error))?;
            }
        }
        // Those that cannot be read recognise nobody.
        _ => _ = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    if store.is_empty() {
        return Err(CommandError::Database("there are no certificates to recognise the server by (sslrootcert)".to_owned()));
    }
    Ok(MakeRustlsConnect::new(builder.with_root_certificates(store).with_no_client_auth()))
}

/// Encrypts without asking who it is, as libpq does with `sslmode=require`.
#[derive(Debug)]
struct Unrecognised(Arc<CryptoProvider>);

impl ServerCertVerifier for Unrecognised {
    fn verify_server_cert(
        &self,
        _: &CertificateDer,
        _: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_the_driver_does_not_have() {
        for (url, rest, full, roots) in [
            ("postgresql://u:p@h/d", "postgresql://u:p@h/d", false, None),
            ("postgresql://h/d?sslmode=verify-full", "postgresql://h/d", true, None),
            ("postgresql://h/d?a=b&sslmode=verify-ca&sslrootcert=%2Fx%20y", "postgresql://h/d?a=b", true, Some("/x y")),
            ("postgresql://h/d?sslmode=require", "postgresql://h/d?sslmode=require", false, None),
            ("host=h sslmode=verify-full dbname='a b'", "host=h dbname='a b'", true, None),
        ] {
            let found = options(url);
            assert_eq!(found.rest, rest);
            assert_eq!(found.recognition == Recognition::Full, full, "{url}");
            assert_eq!(found.roots.as_deref(), roots);
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in
            ["postgresql://u:s3cret@[/d", "host=h password='s3cret", "postgresql://u:s3cret@localhost:1/d?connect_timeout=1"]
        {
            let Err(error) = connect(url) else { panic!("{url}") };
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
