//! Connects to a server as libpq does, but with rustls. No message of this module contains the
//! connection string or a password.

use crate::error::CommandError;
use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres_rustls::MakeRustlsConnect;

/// The values of libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    /// Stands for `prefer` and `allow`. Both modes try to connect with and without TLS, in opposite
    /// orders.
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    fn of(text: &str) -> Result<Self, CommandError> {
        Ok(match text {
            "disable" => Mode::Disable,
            "allow" | "prefer" => Mode::Prefer,
            "require" => Mode::Require,
            "verify-ca" => Mode::VerifyCa,
            "verify-full" => Mode::VerifyFull,
            _ => {
                return Err(CommandError::Database(
                    "the sslmode is none that libpq has".to_owned(),
                ));
            }
        })
    }
}

/// The ways in which the client authenticates the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recognition {
    /// The server is not authenticated.
    None,
    /// The server must have a certificate from a known authority.
    Authority,
    /// The server must have a certificate for its host from a known authority.
    Full,
}

pub fn connect(url: &str) -> Result<Client, CommandError> {
    let Options { rest, mode, roots } = options(url)?;
    let unreadable = || CommandError::Database("the connection string cannot be read".to_owned());
    // The parser's error message is dropped, because it would quote the connection string.
    let mut config: Config = rest.parse().map_err(|_| unreadable())?;
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mode = match (mode, config.get_ssl_mode(), variable("PGSSLMODE")) {
        (Some(mode), ..) => Some(mode),
        // If `options()` found no `sslmode` but the driver did, the connection string has an
        // `sslmode` in a form that only the driver recognises.
        (None, SslMode::Disable, _) => Some(Mode::Disable),
        (None, SslMode::Require, _) => Some(Mode::Require),
        (None, _, variable) => variable.map(|mode| Mode::of(&mode)).transpose()?,
    };
    let roots = roots.or_else(|| variable("PGSSLROOTCERT")).or_else(usual_roots);
    let (mode, recognition) = recognition(mode, roots.as_deref())?;
    // PostgreSQL does not use TLS on a Unix-domain socket.
    let is_local = config.get_hosts().iter().all(|host| !matches!(host, Host::Tcp(_)))
        && config.get_hostaddrs().is_empty();
    config.ssl_mode(match mode {
        _ if is_local => SslMode::Disable,
        Mode::Disable => SslMode::Disable,
        Mode::Prefer => SslMode::Prefer,
        Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
    });
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
    let client = if is_local {
        config.connect(NoTls)?
    } else {
        config.connect(tls(recognition, roots.as_deref())?)?
    };
    Ok(client)
}

/// Returns the file in which libpq by default looks for certificates of authorities.
fn usual_roots() -> Option<String> {
    let path = Path::new(&std::env::var_os("HOME")?).join(".postgresql/root.crt");
    path.is_file().then(|| path.to_str().map(str::to_owned)).flatten()
}

/// Combines `sslmode` and `sslrootcert` as libpq does. If certificates of authorities are given,
/// the mode `require` means `verify-ca`. `sslrootcert=system` is accepted only with `verify-full`,
/// because anybody can get a certificate from an authority that the operating system knows.
fn recognition(
    mode: Option<Mode>,
    roots: Option<&str>,
) -> Result<(Mode, Recognition), CommandError> {
    let of_system = roots == Some("system");
    let mode = mode.unwrap_or(if of_system { Mode::VerifyFull } else { Mode::Prefer });
    if of_system && mode != Mode::VerifyFull {
        return Err(CommandError::Database(
            "with sslrootcert=system the sslmode has to be verify-full".to_owned(),
        ));
    }
    if mode == Mode::VerifyCa && roots.is_none() {
        return Err(CommandError::Database(
            "with sslmode=verify-ca, sslrootcert has to name a file with the certificates of the \
             certificate authorities"
                .to_owned(),
        ));
    }
    let recognition = match mode {
        Mode::Disable | Mode::Prefer => Recognition::None,
        Mode::Require if roots.is_none() => Recognition::None,
        Mode::Require | Mode::VerifyCa => Recognition::Authority,
        Mode::VerifyFull => Recognition::Full,
    };
    Ok((mode, recognition))
}

struct Options {
    rest: String,
    mode: Option<Mode>,
    roots: Option<String>,
}

/// Removes `sslmode` and `sslrootcert` from a connection string, because the driver does not handle
/// these options as libpq does. Returns the values of `sslmode` and `sslrootcert`.
fn options(url: &str) -> Result<Options, CommandError> {
    let (mut mode, mut roots) = (None, None);
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let mut keep = |option: &str| {
        let Some((name @ ("sslmode" | "sslrootcert"), value)) =
            option.split_once('=').filter(|(_, value)| !value.is_empty())
        else {
            return true;
        };
        let value =
            if is_url { percent_decoded(value) } else { value.trim_matches('\'').to_owned() };
        *(if name == "sslmode" { &mut mode } else { &mut roots }) = Some(value);
        false
    };
    let rest = match url.split_once('?') {
        Some((base, query)) if is_url => {
            let kept: Vec<&str> = query.split('&').filter(|option| keep(option)).collect();
            if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) }
        }
        _ if is_url => url.to_owned(),
        // `split` also cuts a quoted value at its spaces. `join` restores each quoted value that
        // `split` cut.
        _ => url.split(' ').filter(|option| keep(option)).collect::<Vec<_>>().join(" "),
    };
    Ok(Options { rest, mode: mode.map(|mode| Mode::of(&mode)).transpose()?, roots })
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
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
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        CommandError::Database(format!("{what}: {error}"))
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("TLS", &error))?;
    if recognition == Recognition::None {
        let unrecognised = Arc::new(Unrecognised(provider));
        let config = builder
            .dangerous()
            .with_custom_certificate_verifier(unrecognised)
            .with_no_client_auth();
        return Ok(MakeRustlsConnect::new(config));
    }
    let mut store = RootCertStore::empty();
    match roots {
        Some(path) if path != "system" => {
            let certificates = CertificateDer::pem_file_iter(Path::new(path))
                .map_err(|error| failed(path, &error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| failed(path, &error))?;
                store.add(certificate).map_err(|error| failed(path, &error))?;
            }
        }
        // A certificate of the operating system that cannot be parsed is ignored.
        _ => _ = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    if store.is_empty() {
        return Err(CommandError::Database(
            "there are no certificates to recognise the server by (sslrootcert)".to_owned(),
        ));
    }
    if recognition == Recognition::Full {
        return Ok(MakeRustlsConnect::new(
            builder.with_root_certificates(store).with_no_client_auth(),
        ));
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
    let by_authority = Arc::new(ByAuthority(inner.map_err(|error| failed("TLS", &error))?));
    Ok(MakeRustlsConnect::new(
        builder.dangerous().with_custom_certificate_verifier(by_authority).with_no_client_auth(),
    ))
}

/// Accepts a certificate that a known authority has signed for any host, as libpq with
/// `sslmode=verify-ca` does.
#[derive(Debug)]
struct ByAuthority(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ByAuthority {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer,
        intermediates: &[CertificateDer],
        name: &ServerName,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The rustls verifier checks the host name last. An error of the host name therefore shows
        // that the certificate has passed all other checks.
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Encrypts the connection without authenticating the server, as libpq with `sslmode=require` does
/// if it has no certificates of authorities.
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
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
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
        for (url, rest, mode, roots) in [
            ("postgresql://u:p@h/d", "postgresql://u:p@h/d", None, None),
            (
                "postgresql://h/d?sslmode=verify-full",
                "postgresql://h/d",
                Some(Mode::VerifyFull),
                None,
            ),
            (
                "postgresql://h/d?a=b&sslmode=verify-ca&sslrootcert=%2Fx%20y",
                "postgresql://h/d?a=b",
                Some(Mode::VerifyCa),
                Some("/x y"),
            ),
            ("postgresql://h/d?sslmode=require", "postgresql://h/d", Some(Mode::Require), None),
            (
                "host=h sslmode='verify-full' dbname='a b'",
                "host=h dbname='a b'",
                Some(Mode::VerifyFull),
                None,
            ),
            ("host=h sslmode=allow", "host=h", Some(Mode::Prefer), None),
        ] {
            let found = options(url).expect("it can be read");
            assert_eq!(
                (found.rest.as_str(), found.mode, found.roots.as_deref()),
                (rest, mode, roots)
            );
        }
        assert!(options("host=h sslmode=verify").is_err());
    }

    #[test]
    fn whom_libpq_would_recognise() {
        let asked = |mode, roots| recognition(mode, roots).map(|(_, recognition)| recognition).ok();
        for roots in [None, Some("/roots")] {
            assert_eq!(asked(None, roots), Some(Recognition::None));
            assert_eq!(asked(Some(Mode::Prefer), roots), Some(Recognition::None));
            assert_eq!(asked(Some(Mode::VerifyFull), roots), Some(Recognition::Full));
        }
        assert_eq!(asked(Some(Mode::VerifyCa), None), None);
        assert_eq!(asked(Some(Mode::VerifyCa), Some("/roots")), Some(Recognition::Authority));
        assert_eq!(asked(Some(Mode::Require), None), Some(Recognition::None));
        assert_eq!(asked(Some(Mode::Require), Some("/roots")), Some(Recognition::Authority));
        assert_eq!(asked(None, Some("system")), Some(Recognition::Full));
        assert_eq!(asked(Some(Mode::Require), Some("system")), None);
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "postgresql://u:s3cret@[/d",
            "host=h password='s3cret",
            "postgresql://u:s3cret@localhost:1/d?connect_timeout=1",
        ] {
            let Err(error) = connect(url) else { panic!("{url}") };
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
