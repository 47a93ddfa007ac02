//! The lab's own certificate authority: the API server's certificate, and a
//! client certificate for whoever the lab plays.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use kube::config::{
    AuthInfo, Cluster, Context as KubeContext, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// The authority, kept in memory while the lab runs.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// A certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub struct Certified {
    /// Certificate.
    pub certificate: String,
    /// Private key, PKCS 8.
    pub key: String,
}

impl Authority {
    /// A new authority whose certificate is written to `<folder>/ca.crt`.
    pub fn new(folder: &Path) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "vingt lab");
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let ca_pem = params.self_signed(&key)?.pem();
        fs::write(folder.join("ca.crt"), &ca_pem)?;
        Ok(Self { folder: folder.to_owned(), issuer: Issuer::new(params, key), ca_pem })
    }

    /// Path of the authority's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The authority's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Writes a server certificate for `names` (host names or addresses) to
    /// `<folder>/<file>.crt` and `.key`; answers both paths.
    pub fn server(&self, file: &str, names: &[&str]) -> Result<(PathBuf, PathBuf)> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, file);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certified = self.sign(params)?;
        let paths = (self.folder.join(format!("{file}.crt")), self.folder.join(format!("{file}.key")));
        fs::write(&paths.0, certified.certificate)?;
        fs::write(&paths.1, certified.key)?;
        Ok(paths)
    }

    /// A client certificate for a user of these groups.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Certified> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, user);
        for (index, group) in groups.iter().enumerate() {
            // A distinguished name keeps one entry per type here, and one
            // group per user is all the lab needs.
            anyhow::ensure!(index == 0, "a lab user has at most one group, not {groups:?}");
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// Writes a key pair for service-account tokens; answers the paths of the
    /// public and the private key.
    pub fn service_account_key(&self) -> Result<(PathBuf, PathBuf)> {
        let pair = KeyPair::generate()?;
        let public = self.folder.join("service-account.pub");
        let private = self.folder.join("service-account.key");
        fs::write(&public, pair.public_key_pem())?;
        fs::write(&private, pair.serialize_pem())?;
        Ok((public, private))
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Certified> {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Certified { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// A kubeconfig for a user of at most one group, by client certificate.
    pub fn kubeconfig(&self, server: &str, user: &str, group: Option<&str>) -> Result<Kubeconfig> {
        let groups: Vec<&str> = group.into_iter().collect();
        let certified = self.client(user, &groups)?;
        let auth = AuthInfo {
            client_certificate_data: Some(base64(certified.certificate.as_bytes())),
            client_key_data: Some(base64(certified.key.as_bytes()).into()),
            ..AuthInfo::default()
        };
        Ok(kubeconfig(server, Some(&self.ca_pem), user, auth))
    }

    /// A kubeconfig for the holder of a token. A `server` that is not https
    /// (the cutting proxy) needs no authority.
    pub fn token_kubeconfig(&self, server: &str, user: &str, token: &str) -> Kubeconfig {
        let auth = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        let ca = server.starts_with("https:").then_some(self.ca_pem.as_str());
        kubeconfig(server, ca, user, auth)
    }
}

fn kubeconfig(server: &str, ca_pem: Option<&str>, user: &str, auth: AuthInfo) -> Kubeconfig {
    let cluster = Cluster {
        server: Some(server.to_owned()),
        certificate_authority_data: ca_pem.map(|pem| base64(pem.as_bytes())),
        ..Cluster::default()
    };
    let context = KubeContext { cluster: "lab".into(), user: Some(user.into()), ..KubeContext::default() };
    Kubeconfig {
        api_version: Some("v1".into()),
        kind: Some("Config".into()),
        clusters: vec![NamedCluster { name: "lab".into(), cluster: Some(cluster), other: BTreeMap::new() }],
        auth_infos: vec![NamedAuthInfo { name: user.into(), auth_info: Some(auth), other: BTreeMap::new() }],
        contexts: vec![NamedContext { name: "lab".into(), context: Some(context), other: BTreeMap::new() }],
        current_context: Some("lab".into()),
        ..Kubeconfig::default()
    }
}

/// Writes a kubeconfig that only this user can read.
pub fn write_kubeconfig(path: &Path, kubeconfig: &Kubeconfig) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    // Not written in place: a process may read it at any time.
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(serde_yaml::to_string(kubeconfig)?.as_bytes())?;
    fs::rename(&temporary, path)?;
    Ok(())
}

/// Standard base64 with padding, through Kubernetes' own type for bytes.
fn base64(bytes: &[u8]) -> String {
    match serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec())) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}
