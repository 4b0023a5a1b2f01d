using ZstdSharp;
using ZstdSharp.Unsafe;

namespace NopeGpt.Data.Documents;

public enum FileFormat
{
    /// <summary>txt: documents between lines of &lt;|endoftext|&gt;.</summary>
    Text,

    /// <summary>jsonl or ndjson: a JSON value a line.</summary>
    JsonLines,

    /// <summary>json: an array of records, or records one after the other.</summary>
    Json,

    /// <summary>csv or tsv; the first row names the columns.</summary>
    Csv,

    Parquet,
}

/// <summary>A file of a source.</summary>
public sealed class SourceFile
{
    private static readonly (string Ending, FileFormat Format)[] _endings =
    [
        (".txt", FileFormat.Text), (".text", FileFormat.Text), (".jsonl", FileFormat.JsonLines), (".ndjson", FileFormat.JsonLines), (".json", FileFormat.Json),
        (".csv", FileFormat.Csv), (".tsv", FileFormat.Csv), (".parquet", FileFormat.Parquet), (".parq", FileFormat.Parquet),
    ];

    /// <summary>Of Zstandard, as a power of 2.</summary>
    private const int LargestWindow = 31;

    private static readonly string[] _packed = [".gz", ".gzip", ".zst", ".zstd"];
    private readonly Func<CancellationToken, Task<string>> _fetch;
    private readonly Lock _lock = new();
    private Task<string>? _path;

    private SourceFile(string name, FileFormat format, long length, string version, Func<CancellationToken, Task<string>> fetch)
    {
        (Name, Format, Length, Version, _fetch) = (name, format, length, version, fetch);
    }

    /// <summary>The endings that are read, each also with .gz or .zst behind it.</summary>
    public static string KnownEndings => string.Join(", ", _endings.Select(e => e.Ending));

    /// <summary>The file as it is named to people: its path, or data set and path on the Hub.</summary>
    public string Name { get; }

    public FileFormat Format { get; }

    /// <summary>Bytes as stored.</summary>
    public long Length { get; }

    /// <summary>Something that changes when the content does.</summary>
    internal string Version { get; }

    /// <summary>The format that a file name's ending means; null when it means none.</summary>
    public static FileFormat? FormatOf(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        string plain = _packed.FirstOrDefault(e => name.EndsWith(e, StringComparison.OrdinalIgnoreCase)) is { } packed ? name[..^packed.Length] : name;
        foreach ((string ending, FileFormat format) in _endings)
            if (plain.EndsWith(ending, StringComparison.OrdinalIgnoreCase)) return format;
        return null;
    }

    /// <summary>A file on this machine.</summary>
    /// <exception cref="FileNotFoundException">There is none.</exception>
    /// <exception cref="ArgumentException">Its name has no known ending.</exception>
    public static SourceFile Local(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        FileInfo info = new(path);
        if (!info.Exists) throw new FileNotFoundException($"The file {path} does not exist.", path);
        FileFormat format = FormatOf(path) ?? throw new ArgumentException($"The file {path} must end in {KnownEndings}, or one of these with .gz or .zst behind it.", nameof(path));
        // A link tells its own times; what it leads to is what changes.
        FileSystemInfo target = info.ResolveLinkTarget(returnFinalTarget: true) ?? info;
        return new(path, format, target is FileInfo file ? file.Length : info.Length, $"{target.LastWriteTimeUtc.Ticks}", _ => Task.FromResult(path));
    }

    /// <summary>A file that has to be got first.</summary>
    internal static SourceFile Remote(string name, FileFormat format, long length, string version, Func<CancellationToken, Task<string>> fetch) => new(name, format, length, version, fetch);

    /// <summary>Where the file lies on this machine, once it does. The first call begins to get it; a failed one can be called again.</summary>
    internal Task<string> PathAsync(CancellationToken cancel)
    {
        lock (_lock)
        {
            if (_path is null or { IsFaulted: true } or { IsCanceled: true }) _path = _fetch(cancel);
            return _path;
        }
    }

    /// <summary>Opens a file, through the decompressor that its first bytes call for.</summary>
    internal static Stream OpenStream(string path) => OpenStream(path, out _);

    /// <param name="position">Tells how many bytes of the file are read.</param>
    internal static Stream OpenStream(string path, out Func<long> position)
    {
        FileStream file = OpenFile(path);
        FileStream current = file;
        // A decompressor closes the file when it has read it.
        position = () => current.CanSeek ? current.Position : new FileInfo(path).Length;
        Span<byte> head = stackalloc byte[4];
        PackingKind packing;
        try
        {
            packing = Packing(head[..file.ReadAtLeast(head, head.Length, throwOnEndOfStream: false)]);
            file.Position = 0;
            if (packing == PackingKind.None) return file;
        }
        catch
        {
            file.Dispose();
            throw;
        }
        file.Dispose();
        return packing == PackingKind.Gzip ? new GzipReader(() => current = OpenFile(path)) : new SalvagingStream(() => Zstandard(current = OpenFile(path)));
    }

    private static FileStream OpenFile(string path) => new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, 1 << 16, FileOptions.SequentialScan);

    private static DecompressionStream Zstandard(FileStream file)
    {
        DecompressionStream stream = new(file, checkEndOfStream: true, leaveOpen: false);
        // Archives are made with windows of up to 2 GiB (zstd --long=31); the usual limit is 128 MiB.
        stream.SetParameter(ZSTD_dParameter.ZSTD_d_windowLogMax, LargestWindow);
        return stream;
    }

    internal static PackingKind Packing(ReadOnlySpan<byte> head) =>
        head.StartsWith((ReadOnlySpan<byte>)[0x1f, 0x8b]) ? PackingKind.Gzip
        : head.StartsWith((ReadOnlySpan<byte>)[0x28, 0xb5, 0x2f, 0xfd]) ? PackingKind.Zstandard
        // Some programs put a frame in front that is to be skipped.
        : head.Length == 4 && (head[0] & 0xf0) == 0x50 && head[1..].SequenceEqual((ReadOnlySpan<byte>)[0x2a, 0x4d, 0x18]) ? PackingKind.Zstandard
        : PackingKind.None;

    internal enum PackingKind
    {
        None,
        Gzip,
        Zstandard,
    }
}
