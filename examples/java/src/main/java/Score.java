import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtSession;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;

/** Score FITS cutouts with a raw model: Score realbogus.onnx cutout.fits... */
final class Score {
  private Score() {}

  public static void main(String[] arguments) throws Exception {
    if (arguments.length < 2) {
      System.err.println("usage: Score MODEL.onnx CUTOUT.fits...");
      System.exit(2);
    }
    try (OrtEnvironment environment = OrtEnvironment.getEnvironment();
        OrtSession session = environment.createSession(arguments[0], new OrtSession.SessionOptions())) {
      String classes = session.getMetadata().getCustomMetadata().get("transientnet_classes");
      System.out.println("id,p_" + classes.replace("\n", ",p_") + ",quality");
      for (int i = 1; i < arguments.length; i++) {
        score(environment, session, Path.of(arguments[i]));
      }
    }
  }

  private static void score(OrtEnvironment environment, OrtSession session, Path file) throws Exception {
    Fits fits = Fits.read(file);
    long[] shape = {1, 3, fits.height(), fits.width()};
    float[] seeing = {fits.fwhm()};
    try (OnnxTensor stamps = OnnxTensor.createTensor(environment, FloatBuffer.wrap(fits.pixels()), shape);
        OnnxTensor fwhm = OnnxTensor.createTensor(environment, seeing);
        OrtSession.Result found = session.run(Map.of("stamps", stamps, "fwhm", fwhm))) {
      float[][] probabilities = (float[][]) found.get("probabilities").orElseThrow().getValue();
      int[] quality = (int[]) found.get("quality").orElseThrow().getValue();
      StringBuilder row = new StringBuilder(file.getFileName().toString().replaceFirst("\\.fits$", ""));
      for (float p : probabilities[0]) {
        row.append(',').append(Float.isNaN(p) ? "nan" : String.format(Locale.ROOT, "%.7f", p));
      }
      System.out.println(row.append(',').append(quality[0]));
    }
  }
}
