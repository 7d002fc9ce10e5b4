import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * The stamps of one FITS file of plain float32 image extensions.
 *
 * @param pixels science, reference and difference, (3, height, width), NaN where the file lacks one
 * @param height pixels
 * @param width pixels
 * @param fwhm pixels; 0 where unknown
 */
record Fits(float[] pixels, int height, int width, float fwhm) {
  private static final int BLOCK = 2880;
  private static final int CARD = 80;
  private static final List<String> CHANNELS = List.of("SCIENCE", "REFERENCE", "DIFFERENCE");

  static Fits read(Path path) throws IOException {
    ByteBuffer bytes = ByteBuffer.wrap(Files.readAllBytes(path)); // big-endian, as FITS is
    float[] pixels = null;
    int height = 0;
    int width = 0;
    float fwhm = 0;
    while (bytes.remaining() >= BLOCK) {
      Map<String, String> header = header(path, bytes);
      boolean image = header.getOrDefault("NAXIS", "0").equals("2");
      int columns = image ? Integer.parseInt(header.get("NAXIS1")) : 0;
      int rows = image ? Integer.parseInt(header.get("NAXIS2")) : 0;
      int size = columns * rows * Math.abs(Integer.parseInt(header.get("BITPIX"))) / 8;
      int start = bytes.position();
      int channel = CHANNELS.indexOf(header.getOrDefault("EXTNAME", ""));
      if (channel >= 0) {
        if (!header.get("BITPIX").equals("-32") || size == 0 || size > bytes.remaining()) {
          throw new IOException(path + ": not a whole float32 stamp");
        }
        if (pixels == null) {
          height = rows;
          width = columns;
          pixels = new float[3 * rows * columns];
          Arrays.fill(pixels, Float.NaN);
        } else if (rows != height || columns != width) {
          throw new IOException(path + ": stamps of different sizes");
        }
        if (channel == 0) {
          fwhm = Float.parseFloat(header.getOrDefault("FWHM", "0"));
        }
        bytes.slice().asFloatBuffer().get(pixels, channel * rows * columns, rows * columns);
      }
      bytes.position(Math.min(bytes.limit(), start + (size + BLOCK - 1) / BLOCK * BLOCK));
    }
    if (pixels == null) {
      throw new IOException(path + ": no stamps");
    }
    return new Fits(pixels, height, width, fwhm);
  }

  private static Map<String, String> header(Path path, ByteBuffer bytes) throws IOException {
    Map<String, String> header = new HashMap<>();
    byte[] card = new byte[CARD];
    boolean ended = false;
    while (!ended) {
      if (bytes.remaining() < BLOCK) {
        throw new IOException(path + ": no end of a FITS header");
      }
      for (int i = 0; i < BLOCK / CARD; i++) {
        bytes.get(card);
        String text = new String(card, StandardCharsets.US_ASCII);
        ended |= text.startsWith("END     ");
        if (text.charAt(8) == '=') {
          String value = text.substring(10).split("/")[0].replace("'", "").trim();
          header.put(text.substring(0, 8).trim(), value);
        }
      }
    }
    return header;
  }
}
