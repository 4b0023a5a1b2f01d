using System.IO.Compression;
using System.Text;
using System.Text.Json;

namespace NopeGpt.Benchmarks;

/// <summary>English prose of the shared data: novels, then textbooks.</summary>
internal static class Prose
{
    private static readonly string[] _corpora = ["standardebooks", "openstax-ccby"];

    /// <summary>The shared data's folder: NOPEGPT_TEST_DATA, or shared/data beside the checkout; null where there is none.</summary>
    public static string? DataFolder { get; } = Environment.GetEnvironmentVariable("NOPEGPT_TEST_DATA") ?? Above("shared/data");

    /// <summary>The first folder or file of that name on the way up from the program.</summary>
    public static string? Above(string name)
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
            if (Path.Exists(Path.Combine(folder.FullName, name))) return Path.Combine(folder.FullName, name);
        return null;
    }

    /// <summary>Whole documents of so many bytes at most.</summary>
    public static List<byte[]> Documents(string dataFolder, long bytes)
    {
        List<byte[]> documents = [];
        foreach (string corpus in _corpora)
        {
            foreach (byte[] text in Documents(Path.Combine(dataFolder, "pretrain", $"{corpus}.jsonl.gz")))
            {
                if (text.Length > bytes) continue;
                documents.Add(text);
                bytes -= text.Length;
            }
        }
        return documents;
    }

    /// <summary>The texts of a packed file.</summary>
    public static List<byte[]> Documents(string file)
    {
        List<byte[]> documents = [];
        using StreamReader lines = new(new GZipStream(File.OpenRead(file), CompressionMode.Decompress));
        while (lines.ReadLine() is { } line)
        {
            using JsonDocument record = JsonDocument.Parse(line);
            documents.Add(Encoding.UTF8.GetBytes(record.RootElement.GetProperty("text").GetString()!));
        }
        return documents;
    }
}
