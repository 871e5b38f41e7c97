//! Accounts at stores, in the shapes that Aidbox gives them as resources.

use serde::Deserialize;
use std::fmt;

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
