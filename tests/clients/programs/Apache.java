// Apache HttpClient 5 with its defaults, and with what its releases since 5.4 offer in every request.

import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import org.apache.hc.client5.http.classic.methods.HttpGet;
import org.apache.hc.client5.http.classic.methods.HttpPost;
import org.apache.hc.client5.http.config.RequestConfig;
import org.apache.hc.client5.http.impl.classic.CloseableHttpClient;
import org.apache.hc.client5.http.impl.classic.HttpClients;
import org.apache.hc.core5.http.ClassicHttpRequest;
import org.apache.hc.core5.http.ContentType;
import org.apache.hc.core5.http.io.entity.EntityUtils;
import org.apache.hc.core5.http.io.entity.FileEntity;
import org.apache.hc.core5.http.io.entity.StringEntity;

public class Apache {
    public static void main(String[] arguments) throws Exception {
        String url = arguments[0];
        File file = new File(arguments[1]);
        // Since 5.4 an interceptor of its own does this; Debian has 5.2.
        CloseableHttpClient client =
            HttpClients.custom()
                .addRequestInterceptorLast((request, entity, context) -> {
                    request.setHeader("Upgrade", "TLS/1.2");
                    request.setHeader("Connection", "upgrade");
                })
                .build();
        try (client) {
            for (int call = 0; call < 5; call++) {
                HttpPost request = new HttpPost(url + "/call");
                request.setEntity(new StringEntity("{\"n\":" + call + "}", ContentType.APPLICATION_JSON));
                say("call " + answer(client, request));
            }
            HttpPost upload = new HttpPost(url + "/upload");
            upload.setConfig(RequestConfig.custom().setExpectContinueEnabled(true).build());
            upload.setEntity(new FileEntity(file, ContentType.APPLICATION_OCTET_STREAM));
            say("upload " + answer(client, upload));
            client.execute(new HttpGet(url + "/stream"), answer -> {
                BufferedReader lines =
                    new BufferedReader(new InputStreamReader(answer.getEntity().getContent()));
                for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                    if (!line.isEmpty()) {
                        say("event " + line);
                    }
                }
                return null;
            });
        }
    }

    private static String answer(CloseableHttpClient client, ClassicHttpRequest request) throws Exception {
        return client.execute(
            request, answer -> answer.getCode() + " " + EntityUtils.toString(answer.getEntity()));
    }

    private static void say(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
