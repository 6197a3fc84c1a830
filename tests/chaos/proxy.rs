//! A wire between client and server that can be cut in the middle of an answer.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use support::Cluster;

const SOCKET: &str = ".s.PGSQL.5432";

/// Passes one connection on.
pub struct Proxy {
    dir: PathBuf,
    /// Bytes of answers that still go through.
    left: Arc<AtomicI64>,
}

impl Proxy {
    pub fn start(cluster: &Cluster) -> Self {
        let dir = cluster.dir().join("proxy");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("own directory");
        let listener = UnixListener::bind(dir.join(SOCKET)).expect("a new socket");
        let server = cluster.dir().join(SOCKET);
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let budget = Arc::clone(&left);
        thread::spawn(move || {
            let Ok((client, _)) = listener.accept() else { return };
            let Ok(server) = UnixStream::connect(server) else { return };
            pass(&client, &server, &budget);
        });
        Self { dir, left }
    }

    /// Where clients connect to.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// From now on so many bytes of answers go through, then the wire is cut on both sides.
    pub fn cut_after(&self, bytes: usize) {
        self.left.store(bytes as i64, Ordering::SeqCst);
    }

    pub fn stop(self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn pass(client: &UnixStream, server: &UnixStream, left: &AtomicI64) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut from, mut to) = (client, server);
            let mut buffer = [0; 8192];
            while let Ok(length @ 1..) = from.read(&mut buffer)
                && to.write_all(&buffer[..length]).is_ok()
            {}
            let _ = to.shutdown(Shutdown::Both);
        });
        let (mut from, mut to) = (server, client);
        let mut buffer = [0; 64];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let room = left.fetch_sub(length as i64, Ordering::SeqCst);
            let through = length.min(room.max(0) as usize);
            if to.write_all(&buffer[..through]).is_err() || through < length {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
