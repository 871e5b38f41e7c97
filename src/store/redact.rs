//! URLs as people may see them.

use url::Url;

/// A URL without what may be secret: credentials, query string, fragment.
pub fn redact(text: &str) -> String {
    match Url::parse(text) {
        Ok(mut url) if url.has_host() => {
            // Both fail only for URLs that cannot have credentials.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.set_query(None);
            url.set_fragment(None);
            url.into()
        }
        _ => {
            let open = text.split(['?', '#']).next().unwrap_or_default();
            let plain = match open.split_once("://") {
                Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, rest)| rest)),
                None => open.to_owned(),
            };
            plain.chars().take(200).collect()
        }
    }
}
