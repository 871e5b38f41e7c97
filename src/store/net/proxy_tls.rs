//! How the network is reached, as a superuser says it: through which proxy, with whose certificates.

use ureq::Proxy;
use ureq::tls::{Certificate, PemItem, RootCerts};

/// A proxy by its URL, or that of the variables of the server's environment. None where it is no URL of one.
pub fn proxy(text: &str) -> Option<Option<Proxy>> {
    match text {
        "" => Some(None),
        "environment" => Some(Proxy::try_from_env()),
        url => Proxy::new(url).ok().map(Some),
    }
}

/// The authorities that are trusted: those that browsers trust, and those of a file in PEM. None where it has none.
pub fn trusted(pem: &[u8]) -> Option<RootCerts> {
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in ureq::tls::parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.ok()? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return None;
    }
    certificates.extend(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|der| Certificate::from_der(der)));
    Some(RootCerts::from(certificates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_proxy_and_no_certificate_is_refused() {
        assert!(proxy("").unwrap().is_none());
        assert_eq!(proxy("http://u:p@proxy:3128").unwrap().unwrap().host(), "proxy");
        assert!(proxy("nonsense://x").is_none());
        assert!(trusted(b"nonsense").is_none());
        assert!(trusted(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").is_none());
    }
}
