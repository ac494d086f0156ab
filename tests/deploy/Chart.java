import com.marcnuri.helm.Helm;
import java.nio.file.Path;

/** Helm's own linter and renderer: Chart CHART KUBERNETES NAME=VALUE… prints the manifests; exits 1 if the linter has anything to say. */
class Chart {
    public static void main(String[] args) throws Exception {
        var helm = new Helm(Path.of(args[0]));
        var lint = helm.lint().strict().call();
        if (lint.isFailed()) {
            lint.getMessages().forEach(System.err::println);
            System.exit(1);
        }
        var template = helm.template().withName("test").withKubeVersion(args[1]);
        for (int i = 2; i < args.length; i++) {
            var pair = args[i].split("=", 2);
            template.set(pair[0], pair[1]);
        }
        try {
            System.out.print(template.call());
        } catch (IllegalStateException e) {
            System.err.println(e.getMessage());
            System.exit(1);
        }
    }
}
