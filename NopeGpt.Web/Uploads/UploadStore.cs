using System.Security.Cryptography;
using System.Text;
using NopeGpt.Data.Documents;
using NopeGpt.Jobs;
using NopeGpt.Web.Components.Parts;

namespace NopeGpt.Web.Uploads;

/// <summary>A file that was sent to the dashboard.</summary>
/// <param name="Path">Where it lies: the source of a data set.</param>
internal sealed record UploadedFile(string Name, string Path, long Bytes, DateTimeOffset Received);

/// <summary>The files that people and programs send, in the store's folder uploads. A file stands under its name only when whole. At the start of the
/// dashboard what an earlier one left half-done is deleted.</summary>
internal sealed class UploadStore(Store store, UploadOptions options) : IHostedService
{
    private const string Unfinished = ".part";
    private const int ChunkBytes = 1 << 17;

    // File systems allow 255.
    private const int LongestName = 150;

    private const string OtherSigns = " ._-()+,";

    private readonly Lock _renaming = new();

    public long MaximumBytes => options.MaximumBytes;

    /// <summary>All files by name.</summary>
    public IReadOnlyList<UploadedFile> List() => !Directory.Exists(store.UploadsFolder) ? [] :
    [
        .. new DirectoryInfo(store.UploadsFolder).EnumerateFiles().Where(f => !f.Name.StartsWith('.')).OrderBy(f => f.Name, StringComparer.Ordinal)
            .Select(f => new UploadedFile(f.Name, f.FullName, f.Length, f.LastWriteTimeUtc)),
    ];

    public UploadedFile? Find(string name) => List().FirstOrDefault(f => f.Name == name);

    /// <summary>Whether a file of that name and size would be taken, before any of it is sent.</summary>
    /// <param name="bytes">Null where that is not known.</param>
    /// <exception cref="UploadException">It would not; an existing file of the name is no reason here.</exception>
    public void Check(string name, long? bytes)
    {
        ArgumentNullException.ThrowIfNull(name);
        if (!IsSafe(name))
        {
            throw new UploadException(StatusCodes.Status400BadRequest, $"'{Short(name)}' cannot be a file's name here: use letters, digits, spaces and . _ - ( ) + , beginning with a letter or digit, "
                + $"at most {LongestName} bytes, and no folders.");
        }
        if (SourceFile.FormatOf(name) is null)
            throw new UploadException(StatusCodes.Status415UnsupportedMediaType, $"'{Short(name)}' is no kind of file that is read: its name must end in {SourceFile.KnownEndings}, or one of these with .gz or .zst behind it.");
        if (bytes > MaximumBytes) throw TooLarge(name);
        if (bytes is { } wanted && FreeBytes() is { } free && wanted > free)
        {
            throw new UploadException(StatusCodes.Status507InsufficientStorage,
                $"'{Short(name)}' has {Figures.Bytes(wanted)}, and {Figures.Bytes(free)} are free where the storage root {store.Root} lies: free some space, or choose another Storage:Root.");
        }
    }

    /// <summary>Writes what comes, beside the final name until it is whole and on the disk.</summary>
    /// <param name="announced">Bytes that are to come, where that is known.</param>
    /// <param name="replace">Whether a file of the same name gives way; otherwise it stays and this one is refused.</param>
    /// <param name="isWhole">Asked when all bytes are here; throws where something after them shows that they must not be kept.</param>
    /// <returns>The file and its SHA-256 in hexadecimal.</returns>
    /// <exception cref="UploadException">It is not taken; nothing of it is left.</exception>
    public async Task<(UploadedFile File, string Sha256)> SaveAsync(string name, Stream content, long? announced, bool replace, Func<Task>? isWhole = null, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(content);
        Check(name, announced);
        string final = Path.Combine(store.UploadsFolder, name), temporary = Path.Combine(store.UploadsFolder, $".{Guid.NewGuid():N}{Unfinished}");
        if (!replace && File.Exists(final)) throw Exists(name);
        try
        {
            Directory.CreateDirectory(store.UploadsFolder);
            (long bytes, string hash) = await WriteAsync(name, content, temporary, cancel);
            if (isWhole is not null) await isWhole();
            // To look and to rename are two steps for the system; no other dashboard works on this store.
            lock (_renaming)
            {
                if (!replace && File.Exists(final)) throw Exists(name);
                File.Move(temporary, final, overwrite: true);
            }
            return (new UploadedFile(name, final, bytes, File.GetLastWriteTimeUtc(final)), hash);
        }
        catch (Exception e) when (DiskErrors.IsUnwritable(e))
        {
            throw new UploadException(StatusCodes.Status507InsufficientStorage, $"'{Short(name)}' could not be written to {store.UploadsFolder} ({e.Message.TrimEnd('.')}): free some space, or mend the folder's rights.");
        }
        finally
        {
            File.Delete(temporary);
        }
    }

    /// <summary>False where there is no such file.</summary>
    public bool Delete(string name)
    {
        if (Find(name) is not { } file) return false;
        File.Delete(file.Path);
        return true;
    }

    public Task StartAsync(CancellationToken cancellationToken)
    {
        if (!Directory.Exists(store.UploadsFolder)) return Task.CompletedTask;
        foreach (string left in Directory.EnumerateFiles(store.UploadsFolder, $".*{Unfinished}")) File.Delete(left);
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    private async Task<(long Bytes, string Hash)> WriteAsync(string name, Stream content, string path, CancellationToken cancel)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        await using FileStream file = new(path, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, Share = FileShare.None, BufferSize = 0, Options = FileOptions.Asynchronous });
        byte[] chunk = new byte[ChunkBytes];
        long bytes = 0;
        for (int read; (read = await ReadAsync(content, chunk, cancel)) > 0;)
        {
            bytes += read;
            if (bytes > MaximumBytes) throw TooLarge(name);
            hash.AppendData(chunk.AsSpan(0, read));
            await file.WriteAsync(chunk.AsMemory(0, read), cancel);
        }
        if (bytes == 0) throw new UploadException(StatusCodes.Status400BadRequest, $"'{Short(name)}' is empty: send the file's bytes as the body, or as a form with one file (curl -F file=@FILE).");
        file.Flush(flushToDisk: true);
        return (bytes, Convert.ToHexStringLower(hash.GetHashAndReset()));
    }

    /// <summary>What breaks on the way is told apart from what breaks on the disk.</summary>
    private static async Task<int> ReadAsync(Stream content, byte[] into, CancellationToken cancel)
    {
        try { return await content.ReadAsync(into, cancel); }
        catch (Exception e) when (e is IOException and not BadHttpRequestException or InvalidDataException)
        {
            throw new UploadException(StatusCodes.Status400BadRequest, $"The file did not arrive whole ({e.Message.TrimEnd('.')}): send it again.");
        }
    }

    private UploadException TooLarge(string name) => new(StatusCodes.Status413PayloadTooLarge,
        $"'{Short(name)}' is larger than {MaximumBytes} bytes, the most that one upload may have: raise Uploads:MaximumBytes in appsettings.json, compress it (.gz or .zst), or give its path on this machine.");

    private static UploadException Exists(string name) =>
        new(StatusCodes.Status409Conflict, $"There is a file '{Short(name)}' already: choose another name, delete that one, or send it with replace=true.");

    private long? FreeBytes()
    {
        try { return new DriveInfo(store.Root).AvailableFreeSpace; }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException) { return null; /* not every file system tells; the writing will */ }
    }

    /// <summary>True for a plain name, which cannot lead to another folder, hide, or be taken for a pattern.</summary>
    private static bool IsSafe(string name) => name.Length > 0 && char.IsLetterOrDigit(name[0]) && name.EnumerateRunes().All(IsUsual) && Encoding.UTF8.GetByteCount(name) <= LongestName;

    private static bool IsUsual(Rune sign) => Rune.IsLetterOrDigit(sign) || Rune.GetUnicodeCategory(sign) == System.Globalization.UnicodeCategory.NonSpacingMark || OtherSigns.Contains(sign.ToString(), StringComparison.Ordinal);

    private static string Short(string name) => name.Length <= 80 ? name : name[..77] + "...";
}
