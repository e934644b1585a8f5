import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.io.BufferedOutputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/** Changes TABLE SLOT PUBLICATION EVENTS FILE: writes a table's changes as lines of JSON with Debezium's embedded engine. */
public class Changes {
  public static void main(String[] args) throws Exception {
    Properties p = new Properties();
    String[] settings = {
      "name", "bench",
      "connector.class", "io.debezium.connector.postgresql.PostgresConnector",
      "offset.storage", "org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
      "offset.flush.interval.ms", "10000",
      "topic.prefix", "bench",
      "database.hostname", "127.0.0.1",
      "database.port", System.getenv("PGPORT"),
      "database.user", System.getenv("PGUSER"),
      "database.password", "none",
      "database.dbname", System.getenv("PGDATABASE"),
      "plugin.name", "pgoutput",
      "table.include.list", args[0],
      "slot.name", args[1],
      "publication.name", args[2],
      "publication.autocreate.mode", "disabled",
      "snapshot.mode", "no_data",
      "decimal.handling.mode", "string",
      "tombstones.on.delete", "false",
      "key.converter.schemas.enable", "false",
      "value.converter.schemas.enable", "false",
    };
    for (int i = 0; i < settings.length; i += 2) p.setProperty(settings[i], settings[i + 1]);
    long want = Long.parseLong(args[3]);
    AtomicLong seen = new AtomicLong();
    CountDownLatch all = new CountDownLatch(1);
    OutputStream out = new BufferedOutputStream(new FileOutputStream(args[4]), 1 << 20);
    DebeziumEngine<ChangeEvent<String, String>> engine = DebeziumEngine.create(Json.class).using(p).notifying((events, committer) -> {
      for (ChangeEvent<String, String> e : events) {
        if (e.value() != null && e.destination().equals("bench." + args[0])) {
          try {
            out.write(e.value().getBytes(StandardCharsets.UTF_8));
            out.write('\n');
          } catch (IOException x) {
            throw new UncheckedIOException(x);
          }
          if (seen.incrementAndGet() == want) all.countDown();
        }
        committer.markProcessed(e);
      }
      committer.markBatchFinished();
    }).build();
    Executors.newSingleThreadExecutor().execute(engine);
    boolean done = all.await(30, TimeUnit.MINUTES);
    out.close();
    System.err.println(seen.get() + " of " + want + " changes");
    Runtime.getRuntime().halt(done ? 0 : 1);
  }
}
