//! A TCP proxy whose connections can fall silent without being closed, as behind a router that drops
//! what it carries.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// Connections with a number below this one are silent.
    silent: Arc<watch::Sender<usize>>,
    accepted: Arc<watch::Sender<usize>>,
}

impl Proxy {
    pub(crate) async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silent = Arc::new(watch::Sender::new(0));
        let accepted = Arc::new(watch::Sender::new(0));
        let (target, signal, counter) = (target.to_owned(), silent.clone(), accepted.clone());
        tokio::spawn(async move {
            for number in 0.. {
                let (client, _) = listener.accept().await.unwrap();
                counter.send_replace(number + 1);
                let server = TcpStream::connect(&target).await.unwrap();
                let ((from, to), (back, forth)) = (client.into_split(), server.into_split());
                tokio::spawn(carry(from, forth, number, signal.subscribe()));
                tokio::spawn(carry(back, to, number, signal.subscribe()));
            }
        });
        Self {
            address,
            silent,
            accepted,
        }
    }

    /// Nothing passes until [`Self::silence`] is called, on new connections neither.
    pub(crate) fn silence_all(&self) {
        self.silent.send_replace(usize::MAX);
    }

    /// From now on nothing passes on the connections there are.
    pub(crate) fn silence(&self) {
        self.silent.send_replace(*self.accepted.borrow());
    }

    pub(crate) fn accepted(&self) -> usize {
        *self.accepted.borrow()
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: usize,
    mut silent: watch::Receiver<usize>,
) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let has_fallen_silent = async {
            // A proxy that is gone is silent too.
            let _ = silent.wait_for(|silent| number < *silent).await;
        };
        let read = tokio::select! {
            biased;
            () = has_fallen_silent => std::future::pending().await,
            read = from.read(&mut bytes) => read,
        };
        match read {
            Ok(count) if count > 0 && to.write_all(&bytes[..count]).await.is_ok() => {}
            _ => return,
        }
    }
}
