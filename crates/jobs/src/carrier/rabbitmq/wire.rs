//! The bytes between lapin and RabbitMQ, with TLS or without.
//!
//! lapin's own TLS comes with a reader of PKCS#12 and its thirty crates, which nobody needs here, and which take the better
//! part of a minute to build.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use async_rs::{Runtime, Tokio};
use auspex_kernel::tls;
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::{Stream, TryFutureExt as _};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};
use tokio_util::either::Either;

type Wire = Compat<Either<TcpStream, TlsStream<TcpStream>>>;

/// A connection to the server of this URI. Call it on the control runtime.
pub(super) async fn connect(
    uri: AMQPUri,
    ca_file: &Path,
    properties: ConnectionProperties,
) -> lapin::Result<Connection> {
    let runtime = Runtime::new(Kit(Tokio::current()));
    let ca_file = ca_file.to_owned();
    let reach = async move |uri: AMQPUri, _| {
        let wire = reach(&uri, &ca_file).await?;
        Ok(AsyncTcpStream::Plain(wire.compat()))
    };
    Connection::connector(uri, runtime, reach, properties).await
}

/// Whom to trust: the authorities of this file, or of the system.
///
/// # Errors
/// What is wrong, to stand after the name of the setting.
pub(super) fn roots(ca_file: &Path) -> Result<RootCertStore, String> {
    if ca_file.as_os_str().is_empty() {
        return tls::system_roots().map_err(|why| format!("is needed, for {why}"));
    }
    tls::read(ca_file).and_then(|pem| tls::roots(&pem))
}

async fn reach(
    uri: &AMQPUri,
    ca_file: &Path,
) -> io::Result<Either<TcpStream, TlsStream<TcpStream>>> {
    let host = uri.authority.host.as_str();
    let stream = TcpStream::connect((host, uri.authority.port)).await?;
    stream.set_nodelay(true)?;
    if uri.scheme == AMQPScheme::AMQP {
        return Ok(Either::Left(stream));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let roots = roots(ca_file);
    let roots = roots.map_err(|why| io::Error::other(format!("jobs.rabbitmq.ca_file {why}")))?;
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).map_ok(Either::Right).await
}

/// tokio, whose connections are [`Wire`]s.
#[derive(Clone, Debug)]
struct Kit(Tokio);

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = Wire;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// Nobody asks for it: [`reach`] makes the connections.
    fn register<H: io::Read + io::Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Wire, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Wire>> + Send + 'static {
        TcpStream::connect(address).map_ok(|stream| Either::Left(stream).compat())
    }
}
