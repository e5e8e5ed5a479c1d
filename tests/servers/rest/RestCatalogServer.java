import java.net.InetSocketAddress;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.iceberg.CatalogUtil;
import org.apache.iceberg.catalog.Catalog;
import org.apache.iceberg.rest.RESTCatalogAdapter;
import org.apache.iceberg.rest.RESTCatalogServlet;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;

/** Serves Iceberg's reference REST catalog on loopback. Arguments: port, SQLite file, warehouse folder. */
public final class RestCatalogServer {
  public static void main(String[] arguments) throws Exception {
    Catalog catalog =
        CatalogUtil.buildIcebergCatalog(
            "tests",
            Map.of(
                "catalog-impl", "org.apache.iceberg.jdbc.JdbcCatalog",
                "uri", "jdbc:sqlite:" + arguments[1] + "?busy_timeout=10000&journal_mode=WAL",
                "jdbc.schema-version", "V1",
                "jdbc.strict-mode", "true",
                "clients", "1",
                "warehouse", "file://" + arguments[2]),
            new Configuration());
    ServletContextHandler pages = new ServletContextHandler(ServletContextHandler.NO_SESSIONS);
    pages.addServlet(new ServletHolder(new RESTCatalogServlet(new RESTCatalogAdapter(catalog))), "/*");
    Server server = new Server(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])));
    server.setHandler(pages);
    server.setStopAtShutdown(true);
    server.start();
    server.join();
  }
}
