// Java's own client with its defaults: it offers h2c in every request. Run as source.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;

public class Client {
    public static void main(String[] arguments) throws Exception {
        String url = arguments[0];
        Path file = Path.of(arguments[1]);
        HttpClient client = HttpClient.newHttpClient();

        for (int call = 0; call < 5; call++) {
            HttpRequest request =
                HttpRequest.newBuilder(URI.create(url + "/call"))
                    .POST(BodyPublishers.ofString("{\"n\":" + call + "}"))
                    .build();
            var answer = client.send(request, BodyHandlers.ofString());
            say("call " + answer.statusCode() + " " + answer.body());
        }
        HttpRequest upload =
            HttpRequest.newBuilder(URI.create(url + "/upload"))
                .expectContinue(true)
                .POST(BodyPublishers.ofFile(file))
                .build();
        var answer = client.send(upload, BodyHandlers.ofString());
        say("upload " + answer.statusCode() + " " + answer.body());

        HttpRequest stream = HttpRequest.newBuilder(URI.create(url + "/stream")).build();
        var events = client.send(stream, BodyHandlers.ofLines());
        events.body().filter(line -> !line.isEmpty()).forEach(line -> say("event " + line));
    }

    private static void say(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
