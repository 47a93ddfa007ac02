//! Writing to the API server: with a time limit, a limit on how many at once,
//! and an answer that says whether the write happened.
//!
//! A write whose outcome is not known (no answer, or the server's own failure)
//! is repeated until it is: what was decided stays held meanwhile.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{
    ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
    PropagationPolicy,
};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::Semaphore;
use vingt_crds::names;

use crate::client::words;
use crate::metrics::Metrics;
use crate::world::{Change, Delta, Key, View, version};

/// Requests under way at a time.
const AT_ONCE: usize = 64;
/// How long one request may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(5);
/// How often a request without an answer is repeated before it is given up.
const ATTEMPTS: u32 = 8;

/// Why a write did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The object has changed, or is not there any more.
    Stale,
    /// The API server refuses it, in its words.
    Refused(String),
    /// It can never be accepted as it is, in the API server's words.
    Invalid(String),
    /// Nobody knows whether it happened.
    Unknown(String),
}

impl Failure {
    /// In the API server's words, if it said any.
    pub fn words(&self) -> &str {
        match self {
            Self::Stale => "it has changed or is gone",
            Self::Refused(why) | Self::Invalid(why) | Self::Unknown(why) => why,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stale => write!(f, "the object has changed or is gone"),
            Self::Refused(why) | Self::Invalid(why) => write!(f, "the API server refuses it: {why}"),
            Self::Unknown(why) => write!(f, "no answer from the API server: {why}"),
        }
    }
}

/// Writes objects.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    at_once: Arc<Semaphore>,
    metrics: Metrics,
}

/// What to write to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The kind.
    pub resource: ApiResource,
    /// The object.
    pub key: Key,
    /// The subresource, if not the object itself.
    pub subresource: Option<&'static str>,
    /// How often a request without an answer is sent.
    attempts: u32,
}

impl Target {
    /// An object of kind `K`.
    pub fn object<K: kube::Resource<DynamicType = ()>>(key: &Key) -> Self {
        Self {
            resource: ApiResource::erase::<K>(&()),
            key: key.clone(),
            subresource: None,
            attempts: ATTEMPTS,
        }
    }

    /// The status of an object of kind `K`.
    pub fn status<K: kube::Resource<DynamicType = ()>>(key: &Key) -> Self {
        Self { subresource: Some("status"), ..Self::object::<K>(key) }
    }

    /// A write that decides: it is sent until the API server says whether it
    /// happened. It carries a version, so that it happens once at most.
    pub fn settled(self) -> Self {
        Self { attempts: u32::MAX, ..self }
    }
}

impl Writer {
    /// A writer that uses `client`.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, at_once: Arc::new(Semaphore::new(AT_ONCE)), metrics }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A JSON merge patch; the change is the answer.
    pub async fn merge<V: View>(&self, target: &Target, patch: &Value) -> Result<Change, Failure> {
        self.patch::<V>(target, &Patch::Merge(patch), &params()).await
    }

    /// A strategic merge patch, for lists that are merged by key; the change is the answer.
    pub async fn strategic<V: View>(&self, target: &Target, patch: &Value) -> Result<Change, Failure> {
        self.patch::<V>(target, &Patch::Strategic(patch), &params()).await
    }

    /// Server-side apply, with all conflicts ours; the change is the answer.
    pub async fn apply<V: View>(&self, target: &Target, object: &Value) -> Result<Change, Failure> {
        self.patch::<V>(target, &Patch::Apply(object), &PatchParams::apply(names::OPERATOR).force()).await
    }

    async fn patch<V: View>(
        &self,
        target: &Target,
        patch: &Patch<&Value>,
        params: &PatchParams,
    ) -> Result<Change, Failure> {
        let api = self.api(target);
        let name = &target.key.name;
        let answer = self
            .insist(target, target.attempts, || async {
                match target.subresource {
                    Some(subresource) => api.patch_subresource(subresource, name, params, patch).await,
                    None => api.patch(name, params, patch).await,
                }
            })
            .await?;
        applied::<V>(answer)
    }

    /// Makes an object; [`Failure::Stale`] if there is one of that name.
    pub async fn create<V: View>(&self, target: &Target, object: &Value) -> Result<Change, Failure> {
        applied::<V>(self.post(target, object, false).await?)
    }

    /// Asks whether an object would be accepted. That there is one of that name already is no objection.
    pub async fn would_create(&self, target: &Target, object: &Value) -> Result<(), Failure> {
        match self.post(target, object, true).await {
            Ok(_) | Err(Failure::Stale) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    async fn post(&self, target: &Target, object: &Value, dry_run: bool) -> Result<DynamicObject, Failure> {
        let api = self.api(target);
        let params = PostParams { dry_run, field_manager: Some(names::OPERATOR.into()) };
        let object: DynamicObject = serde_json::from_value(object.clone())
            .map_err(|error| Failure::Refused(format!("it is no object: {error}")))?;
        self.insist(target, ATTEMPTS, || api.create(&params, &object)).await
    }

    /// Reads an object.
    pub async fn read(&self, target: &Target) -> Result<DynamicObject, Failure> {
        let api = self.api(target);
        self.insist(target, ATTEMPTS, || api.get(&target.key.name)).await
    }

    /// Deletes an object if it is still the one with that UID; what it owns goes after it.
    pub async fn delete(&self, target: &Target, uid: &str) -> Result<(), Failure> {
        let api = self.api(target);
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        let deleted = self
            .insist(target, ATTEMPTS, || async { api.delete(&target.key.name, &params).await.map(|_| ()) })
            .await;
        match deleted {
            Err(Failure::Stale) => Ok(()),
            other => other,
        }
    }

    /// Reads an object anew, whatever it takes.
    pub async fn reread<V: View>(&self, target: &Target) -> Result<Change, Failure> {
        let api = self.api(target);
        loop {
            match self.insist(target, ATTEMPTS, || api.get(&target.key.name)).await {
                Ok(object) => return applied::<V>(object),
                Err(Failure::Unknown(why)) => {
                    tracing::warn!(object = %target.key, kind = %target.resource.kind, error = %why, "cannot be read; it is tried again");
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn api(&self, target: &Target) -> Api<DynamicObject> {
        if target.key.namespace.is_empty() {
            Api::all_with(self.client.clone(), &target.resource)
        } else {
            Api::namespaced_with(self.client.clone(), &target.key.namespace, &target.resource)
        }
    }

    /// Sends a request until there is an answer, `attempts` times.
    async fn insist<T, F: Future<Output = kube::Result<T>>>(
        &self,
        target: &Target,
        attempts: u32,
        request: impl Fn() -> F,
    ) -> Result<T, Failure> {
        let mut pause = Duration::from_millis(100);
        let mut attempt = 1;
        loop {
            let permit = self.at_once.acquire().await;
            let answer = tokio::time::timeout(TIME_LIMIT, request()).await;
            drop(permit);
            let result = match answer {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) => Err(failure(&error)),
                Err(_) => Err(Failure::Unknown(format!("none within {} s", TIME_LIMIT.as_secs()))),
            };
            self.metrics.count_write(&target.resource.kind, result.as_ref().err());
            match result {
                Err(Failure::Unknown(why)) if attempt < attempts => {
                    tracing::debug!(object = %target.key, kind = %target.resource.kind, error = %why, "repeated");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(3));
                    attempt += 1;
                }
                other => return other,
            }
        }
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(names::OPERATOR.to_owned()), ..PatchParams::default() }
}

/// An object of the API as a change.
pub(super) fn applied<V: View>(object: DynamicObject) -> Result<Change, Failure> {
    let (key, version) = (Key::of(&object.metadata), version(&object.metadata));
    let view =
        V::parse(object).map_err(|error| Failure::Refused(format!("its answer does not parse: {error}")))?;
    Ok(V::change(Delta::Applied(key, version, Arc::new(view))))
}

fn failure(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => match status.code {
            404 | 409 | 410 => Failure::Stale,
            400 | 422 => Failure::Invalid(status.message.clone()),
            429 | 500..=599 => Failure::Unknown(status.message.clone()),
            _ => Failure::Refused(status.message.clone()),
        },
        other => Failure::Unknown(words(other)),
    }
}
