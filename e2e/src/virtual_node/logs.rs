//! The one part of a kubelet's own API that virtual nodes have: the logs of
//! vingt's programs, so that `kubectl logs` shows them. Only the API server may
//! ask.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::{Body, Bytes};
use futures::stream;
use http::{Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::pki::Authority;

/// The kubelet's usual port; every node has its own address.
pub const PORT: u16 = 10_250;
/// How often a followed log is looked at.
const FOLLOW: Duration = Duration::from_millis(300);
/// Largest piece sent at once, in bytes.
const PIECE: u64 = 64 * 1024;

/// Listens on the node's address for whoever has a certificate of the lab's.
pub async fn serve(authority: &Authority, address: &str, logs: PathBuf) -> Result<()> {
    let (certificate, key) = authority.server(&format!("kubelet-{address}"), &[address])?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.ca_file())?)?;
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    let config = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(
        vec![CertificateDer::from_pem_file(certificate)?],
        PrivateKeyDer::from_pem_file(key)?,
    )?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let socket: SocketAddr = format!("{address}:{PORT}").parse()?;
    let listener = TcpListener::bind(socket).await.with_context(|| format!("cannot listen on {socket}"))?;
    // Dropping the set ends all connections.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, logs) = (acceptor.clone(), logs.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let answer = answer(&request, &logs);
                async move { Ok::<_, Infallible>(answer) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            // A caller that goes away is nothing to report.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

fn answer(request: &Request<Incoming>, logs: &Path) -> Response<Body> {
    let plain = |status: StatusCode, text: String| {
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response
    };
    let mut path = request.uri().path().trim_start_matches('/').split('/');
    let (Some("containerLogs"), Some(_), Some(pod), Some(container)) =
        (path.next(), path.next(), path.next(), path.next())
    else {
        let text = "a virtual node has logs only; pods are played, nothing can be run in them\n";
        return plain(StatusCode::NOT_IMPLEMENTED, text.to_owned());
    };
    let file = logs.join(format!("{pod}_{container}.log"));
    match File::open(&file) {
        Ok(file) => match log(file, request.uri()) {
            Ok(body) => Response::new(body),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")),
        },
        Err(_) => plain(StatusCode::OK, "(this pod is only played: it has no log)\n".to_owned()),
    }
}

/// The log from where the query says on, for ever if it says so.
fn log(mut file: File, uri: &Uri) -> Result<Body> {
    let query = uri.query().unwrap_or_default();
    let parameter = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    if let Some(lines) = parameter("tailLines") {
        let start = start_of_tail(&mut file, lines.parse().context("tailLines is not a number")?)?;
        file.seek(SeekFrom::Start(start))?;
    }
    let follow = parameter("follow") == Some("true");
    Ok(Body::from_stream(stream::try_unfold(file, move |mut file| async move {
        loop {
            let mut piece = Vec::new();
            (&mut file).take(PIECE).read_to_end(&mut piece)?;
            if !piece.is_empty() {
                return Ok::<_, std::io::Error>(Some((Bytes::from(piece), file)));
            }
            if !follow {
                return Ok(None);
            }
            tokio::time::sleep(FOLLOW).await;
        }
    })))
}

/// Where the last `lines` lines begin.
fn start_of_tail(file: &mut File, lines: usize) -> Result<u64> {
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    // The newline at the very end ends the last line and begins none.
    let body = text.strip_suffix(b"\n").unwrap_or(&text);
    let mut begins = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let start = match lines.checked_sub(1) {
        None => text.len(),
        Some(before) => begins.nth(before).map_or(0, |(index, _)| index + 1),
    };
    Ok(u64::try_from(start)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_tail_begins_at_a_line() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\ntwo\nthree\n").unwrap();
        let starts: Vec<u64> = (0..5).map(|n| start_of_tail(&mut file, n).unwrap()).collect();
        assert_eq!(starts, [14, 8, 4, 0, 0]);
    }
}
