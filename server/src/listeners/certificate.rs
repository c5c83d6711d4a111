//! Certificates of clients: the names in them, and the user that they stand for.

use inver_broker::ClientCertificate;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::CertificateUser;

/// A client's certificate, which was verified before; none if it cannot be read.
pub(super) fn of_tls(der: &[u8], user: CertificateUser) -> Option<ClientCertificate> {
    let certificate = Certificate::from_der(der).ok()?;
    let certificate = certificate.tbs_certificate();
    let subject = certificate.subject();
    let mut attributes = subject.iter().filter(|attribute| attribute.oid == COMMON_NAME);
    let common_name = match (attributes.next(), attributes.next()) {
        (Some(attribute), None) => {
            let value = &attribute.value;
            let text = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
            let text = text
                .or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().into()));
            text.or_else(|_| value.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str().into())).ok()
        }
        // Which of several is meant, verifiers disagree about.
        _ => None,
    };
    let alternative = certificate.get_extension::<SubjectAltName>().ok().flatten();
    let alternative = alternative.map(|(_, SubjectAltName(names))| names).unwrap_or_default();
    let first = |of: fn(&GeneralName) -> Option<&str>| alternative.iter().find_map(of).map(str::to_owned);
    let named = match user {
        CertificateUser::None => None,
        CertificateUser::CommonName => common_name.clone(),
        CertificateUser::Subject => Some(subject.to_string()),
        CertificateUser::Dns => first(dns),
        CertificateUser::Email => first(email),
        CertificateUser::Uri => first(uri),
    };
    let text = |name| dns(name).or_else(|| email(name)).or_else(|| uri(name)).map(str::to_owned);
    Some(ClientCertificate {
        subject: subject.to_string(),
        common_name,
        alternative_names: alternative.iter().filter_map(text).collect(),
        user: named.filter(|name| !name.is_empty()),
    })
}

/// What a proxy says of a client's certificate: the common name.
pub(super) fn of_proxy(common_name: String, user: CertificateUser) -> ClientCertificate {
    let is_user = user == CertificateUser::CommonName && !common_name.is_empty();
    ClientCertificate {
        user: is_user.then(|| common_name.clone()),
        common_name: Some(common_name),
        ..ClientCertificate::default()
    }
}

fn dns(name: &GeneralName) -> Option<&str> {
    if let GeneralName::DnsName(name) = name { Some(name.as_str()) } else { None }
}

fn email(name: &GeneralName) -> Option<&str> {
    if let GeneralName::Rfc822Name(name) = name { Some(name.as_str()) } else { None }
}

fn uri(name: &GeneralName) -> Option<&str> {
    if let GeneralName::UniformResourceIdentifier(name) = name { Some(name.as_str()) } else { None }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;

    /// Self-signed: `CN=device-1,O=Ex ample\, Inc,C=DE`, DNS `d1.example`, IP 192.0.2.1, `d1@example.org`,
    /// `urn:dev:1`.
    const DER: &str = include_str!("certificate.base64");

    /// Self-signed: `CN=device-1,CN=admin,O=Example`.
    const TWO_NAMES: &str = include_str!("certificate_two_names.base64");

    fn read_from(base64: &str, user: CertificateUser) -> ClientCertificate {
        of_tls(&BASE64.decode(base64.replace('\n', "").as_bytes()).unwrap(), user).unwrap()
    }

    fn read(user: CertificateUser) -> ClientCertificate {
        read_from(DER, user)
    }

    #[test]
    fn names_of_a_certificate_are_read() {
        let certificate = read(CertificateUser::None);
        assert_eq!(certificate.subject, r"CN=device-1,O=Ex ample\, Inc,C=DE");
        assert_eq!(certificate.common_name.as_deref(), Some("device-1"));
        assert_eq!(certificate.alternative_names, ["d1.example", "d1@example.org", "urn:dev:1"]);
        assert_eq!(certificate.user, None);
    }

    #[test]
    fn the_setting_says_which_name_is_the_user() {
        for (setting, user) in [
            (CertificateUser::CommonName, "device-1"),
            (CertificateUser::Subject, r"CN=device-1,O=Ex ample\, Inc,C=DE"),
            (CertificateUser::Dns, "d1.example"),
            (CertificateUser::Email, "d1@example.org"),
            (CertificateUser::Uri, "urn:dev:1"),
        ] {
            assert_eq!(read(setting).user.as_deref(), Some(user));
        }
        assert_eq!(of_proxy("a".into(), CertificateUser::CommonName).user.as_deref(), Some("a"));
        assert_eq!(of_proxy(String::new(), CertificateUser::CommonName).user, None);
        assert_eq!(of_proxy("a".into(), CertificateUser::Dns).user, None);
        assert_eq!(of_tls(b"no certificate", CertificateUser::CommonName), None);
    }

    #[test]
    fn one_of_several_common_names_is_nobody() {
        let certificate = read_from(TWO_NAMES, CertificateUser::CommonName);
        assert_eq!((certificate.user, certificate.common_name), (None, None));
        let certificate = read_from(TWO_NAMES, CertificateUser::Subject);
        assert_eq!(certificate.user.as_deref(), Some("O=Example,CN=admin,CN=device-1"));
    }

    /// Damaged certificates are refused or read: nothing panics.
    #[test]
    fn damaged_certificates_never_panic() {
        let whole = BASE64.decode(DER.replace('\n', "").as_bytes()).unwrap();
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                let _ = of_tls(&damaged, CertificateUser::Subject);
            }
            assert_eq!(of_tls(&whole[..at], CertificateUser::Subject), None);
        }
    }
}
