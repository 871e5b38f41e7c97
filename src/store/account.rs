//! Accounts at stores, in the shapes that Aidbox gives them as resources.

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use std::fmt;
use url::Url;

/// What follows the name of a storage account of Microsoft's.
const AZURE_HOST: &str = ".blob.core.windows.net";

/// With which buckets are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    pub aws: Option<AwsAccount>,
    pub gcp: Option<GcpAccount>,
    pub azure: Vec<AzureContainer>,
}

impl Accounts {
    /// The container that is known of a URL of Azure's, and the key of the object.
    pub fn azure_object(&self, url: &Url) -> Option<(&AzureContainer, String)> {
        let (storage, container, key) = azure_object(url)?;
        self.azure.iter().find(|known| known.storage == storage && known.container == container).map(|known| (known, key))
    }
}

/// Of Amazon S3, or of a server that speaks its protocol.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AwsAccount {
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    /// Of temporary credentials.
    #[serde(default)]
    pub session_token: Option<String>,
    /// Takes the place of `amazonaws.com`, or is the host of another server, perhaps with a port.
    #[serde(default)]
    pub host: Option<String>,
    /// Whether the bucket stands in the path and not in the host's name: so with a server that is not Amazon's, unless it is said.
    #[serde(default)]
    pub path_style: Option<bool>,
    #[serde(default)]
    pub use_ssl: Option<bool>,
}

/// Of Google Cloud Storage.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GcpAccount {
    pub service_account_email: String,
    /// In PEM.
    pub private_key: String,
    #[serde(default)]
    pub private_key_id: String,
    /// The URL of another server than Google's.
    #[serde(default)]
    pub host: Option<String>,
}

/// A container of Azure Blob Storage, with the key of its storage account.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct AzureContainer {
    pub storage: String,
    pub container: String,
    pub key: String,
    /// The URL of another server than Microsoft's, with the account's name as it has it.
    #[serde(default)]
    pub host: Option<String>,
}

/// Domains of Amazon S3: all its hosts below one of them lead to the same buckets.
const AMAZON: [&str; 2] = ["amazonaws.com", "amazonaws.com.cn"];
/// The server of accounts that name none.
pub const AMAZON_SERVER: &str = AMAZON[0];
const GOOGLE: &str = "storage.googleapis.com";

/// The domain of Amazon's that a host is, or is in.
pub fn amazon_domain(host: &str) -> Option<&'static str> {
    AMAZON.into_iter().find(|domain| host == *domain || host.ends_with(&format!(".{domain}")))
}

/// A server as it is told apart from others: `host`, `host:port` or `host/path`, in small letters.
fn server(url: &str) -> String {
    url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/').to_ascii_lowercase()
}

impl AwsAccount {
    /// The server, whoever asks it: of all hosts of Amazon's their domain.
    pub fn server(&self) -> String {
        let host = self.host.as_deref().map(server).unwrap_or_default();
        if host.is_empty() { AMAZON_SERVER.to_owned() } else { amazon_domain(&host).map_or(host, str::to_owned) }
    }
}

impl GcpAccount {
    /// The server, whoever asks it.
    pub fn server(&self) -> String {
        self.host.as_deref().map(server).filter(|host| !host.is_empty()).unwrap_or_else(|| GOOGLE.to_owned())
    }
}

impl AzureContainer {
    /// The storage account, whoever asks it: as `endpoint`, without its scheme.
    pub fn server(&self) -> String {
        server(&self.endpoint())
    }

    /// The URL of the storage account.
    pub fn endpoint(&self) -> String {
        match &self.host {
            Some(host) => host.trim_end_matches('/').to_owned(),
            None => format!("https://{}{AZURE_HOST}", self.storage),
        }
    }
}

/// A container and the key of an object by the URL that Azure gives it, `https://<storage>.blob.core.windows.net/<container>/<key>`: the
/// storage account, the container, the key. None for others, and for one with a query: it brings its own signature.
pub fn azure_object(url: &Url) -> Option<(&str, &str, String)> {
    let storage = url.host_str()?.strip_suffix(AZURE_HOST)?;
    let (container, key) = url.path().strip_prefix('/')?.split_once('/')?;
    let is_plain = url.query().is_none() && url.port().is_none() && !storage.contains('.') && !container.is_empty() && !key.is_empty();
    let key = percent_decode_str(key).decode_utf8().ok()?.into_owned();
    is_plain.then_some((storage, container, key))
}

impl fmt::Debug for GcpAccount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GcpAccount").field("service_account_email", &self.service_account_email).finish_non_exhaustive()
    }
}

impl fmt::Debug for AzureContainer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AzureContainer").field("storage", &self.storage).field("container", &self.container).finish_non_exhaustive()
    }
}

// The secret is shown nowhere.
impl fmt::Debug for AwsAccount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AwsAccount")
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_one_name() {
        let aws = |host: Option<&str>| AwsAccount {
            region: "eu-west-1".to_owned(),
            access_key_id: "key".to_owned(),
            secret_access_key: "secret".to_owned(),
            session_token: None,
            host: host.map(str::to_owned),
            path_style: None,
            use_ssl: None,
        };
        for (host, name) in [
            (None, "amazonaws.com"),
            (Some(""), "amazonaws.com"),
            (Some("s3.eu-west-1.amazonaws.com"), "amazonaws.com"),
            (Some("amazonaws.com.cn"), "amazonaws.com.cn"),
            (Some("http://MinIO.example.org:9000/"), "minio.example.org:9000"),
            (Some("myamazonaws.com"), "myamazonaws.com"),
        ] {
            assert_eq!(aws(host).server(), name, "{host:?}");
        }
    }

    #[test]
    fn urls_of_azure_name_containers_and_keys() {
        let object =
            |url: &str| azure_object(&Url::parse(url).unwrap()).map(|(storage, container, key)| format!("{storage} {container} {key}"));
        assert_eq!(object("https://lake.blob.core.windows.net/fhir/a%20b/%C3%A4.gz").as_deref(), Some("lake fhir a b/ä.gz"));
        for url in [
            "https://lake.blob.core.windows.net/fhir/a?sig=x",
            "https://lake.blob.core.windows.net/fhir",
            "https://lake.blob.core.windows.net/fhir/",
            "https://lake.blob.core.windows.net.example.org/fhir/a",
            "https://blob.core.windows.net/fhir/a",
            "https://example.org/fhir/a",
        ] {
            assert_eq!(object(url), None, "{url}");
        }
    }
}
