import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

import static java.nio.charset.StandardCharsets.UTF_8;

/**
 * Posts each line of standard input, which is JSON, to a URL, and writes the answers, a line each.
 *
 * <p>With the JDK's own client as it is by default, which offers HTTP/2 with every request, and one
 * client for all of them, which keeps its connections. How, is the second argument: `length` and
 * `chunked` one after the other, `expect` the same but asking first, `together` all at once.
 */
public final class Embed {
    public static void main(String[] arguments) throws Exception {
        String how = arguments[1];
        HttpClient client = HttpClient.newHttpClient();
        List<CompletableFuture<HttpResponse<String>>> answers = new ArrayList<>();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, UTF_8));
        for (String line; (line = lines.readLine()) != null; ) {
            byte[] body = line.getBytes(UTF_8);
            BodyPublisher published =
                    how.equals("chunked")
                            ? BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body))
                            : BodyPublishers.ofByteArray(body);
            HttpRequest request =
                    HttpRequest.newBuilder(URI.create(arguments[0]))
                            .header("Content-Type", "application/json")
                            .expectContinue(how.equals("expect"))
                            .POST(published)
                            .build();
            var answer = client.sendAsync(request, BodyHandlers.ofString(UTF_8));
            if (!how.equals("together")) {
                answer.join();
            }
            answers.add(answer);
        }
        for (CompletableFuture<HttpResponse<String>> answer : answers) {
            HttpResponse<String> response = answer.join();
            if (response.statusCode() != 200) {
                System.err.println(response.statusCode() + " " + response.body());
                System.exit(1);
            }
            System.out.write((response.body() + "\n").getBytes(UTF_8));
        }
        System.out.flush();
    }
}
