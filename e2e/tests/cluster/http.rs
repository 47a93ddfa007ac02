//! Requests as they go over the wire: as somebody else, to any resource, with
//! the API server's warnings.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use kube::core::{GroupVersionKind, TypeMeta};
use kube::discovery::{ApiResource, Scope, pinned_kind};
use serde::Deserialize;
use serde_json::Value;

/// Whom to impersonate; empty is the caller.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct User {
    #[serde(rename = "user")]
    name: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// What the API server said.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// The object, or a `Status`.
    pub body: Value,
    /// The texts of its warnings.
    pub warnings: Vec<String>,
}

impl Answer {
    /// The message of a refusal.
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

/// Where resources are, asked once per kind.
#[derive(Default)]
pub struct Paths {
    kinds: BTreeMap<(String, String), (ApiResource, bool)>,
}

impl Paths {
    /// The path of an object, or of its collection if `single` is not set.
    pub async fn of(&mut self, client: &Client, object: &Value, single: bool) -> Result<String> {
        let types: TypeMeta = serde_json::from_value(object.clone()).context("an object without type")?;
        let key = (types.api_version.clone(), types.kind.clone());
        if !self.kinds.contains_key(&key) {
            let kind = GroupVersionKind::try_from(&types)?;
            let (resource, capabilities) = pinned_kind(client, &kind).await?;
            self.kinds.insert(key.clone(), (resource, capabilities.scope == Scope::Namespaced));
        }
        let (resource, namespaced) = &self.kinds[&key];
        let metadata = &object["metadata"];
        let namespace = metadata["namespace"].as_str().filter(|_| *namespaced);
        let collection = resource_path(resource, namespace);
        if !single {
            return Ok(collection);
        }
        let name = metadata["name"].as_str().context("an object without name")?;
        Ok(format!("{collection}/{name}"))
    }
}

fn resource_path(resource: &ApiResource, namespace: Option<&str>) -> String {
    let root = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let namespace = namespace.map(|name| format!("/namespaces/{name}")).unwrap_or_default();
    format!("{root}{namespace}/{}", resource.plural)
}

/// A request to be sent as somebody.
#[derive(Debug)]
pub struct Call {
    /// The HTTP method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Content type of the body.
    pub content: &'static str,
    /// The body, or nothing.
    pub body: Value,
}

impl Call {
    /// Sends it.
    pub async fn send(&self, client: &Client, user: &User) -> Result<Answer> {
        let mut request = Request::builder().method(self.method.clone()).uri(&self.path);
        request = request.header(http::header::CONTENT_TYPE, self.content);
        if !user.name.is_empty() {
            request = request.header("Impersonate-User", &user.name);
        }
        for group in &user.groups {
            request = request.header("Impersonate-Group", group);
        }
        for (key, values) in &user.extra {
            let name = format!("Impersonate-Extra-{}", percent_encoded(key));
            for value in values {
                request = request.header(&name, value);
            }
        }
        let body = if self.body.is_null() { Vec::new() } else { serde_json::to_vec(&self.body)? };
        let response = client.send(request.body(Body::from(body))?).await?;
        let code = response.status().as_u16();
        let headers = response.headers().get_all(http::header::WARNING).iter();
        let warnings = headers.filter_map(|value| value.to_str().ok().map(str::to_owned)).collect();
        let bytes = response.into_body().collect_bytes().await?;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer { code, body, warnings })
    }
}

/// A key of the user's extra, for a header's name: `/` may not be in one.
fn percent_encoded(key: &str) -> String {
    key.replace('%', "%25").replace('/', "%2F")
}
