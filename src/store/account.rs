//! Accounts at stores, in the shapes that Aidbox gives them as resources.

use serde::Deserialize;
use std::fmt;

/// With which buckets are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    pub aws: Option<AwsAccount>,
    pub gcp: Option<GcpAccount>,
    pub azure: Vec<AzureContainer>,
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

impl AzureContainer {
    /// The URL of the storage account.
    pub fn endpoint(&self) -> String {
        match &self.host {
            Some(host) => host.trim_end_matches('/').to_owned(),
            None => format!("https://{}.blob.core.windows.net", self.storage),
        }
    }
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
