//! A storage engine that fails when nobody writes.

use super::*;

/// Its worker cannot write a table. Nobody would be told before the next commit, which here never comes.
#[tokio::test]
async fn an_idle_engine_ends_when_the_storage_engine_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let store = FjallStore::open(folder.path()).unwrap();
    let seal = store.sealer();
    let stats = Arc::new(Stats::new().unwrap());
    let (engine, ended) = super::start::start_with(store, stats, NO_WAIT).unwrap();
    engine.snapshot().await.unwrap();
    let tables = folder.path().join("store/keyspaces/1/tables");
    std::fs::rename(&tables, tables.with_file_name("away")).unwrap();
    seal().unwrap();
    let ended = tokio::time::timeout(DEADLINE, ended).await.expect("it ends by itself").unwrap();
    let error = ended.unwrap_err();
    assert!(matches!(error, EngineError::Store(StoreError::Engine(fjall::Error::Poisoned))), "{error:?}");
}
