using System.Net;
using System.Security.Cryptography;
using System.Text;

namespace NopeGpt.Data.Documents.Hub;

/// <summary>Gets files of one data set at one commit into the cache.</summary>
internal sealed class HubDownload(HubClient client, HubCache cache, string dataset, string commit)
{
    private const string LinkedHash = "X-Linked-ETag";

    /// <summary>Linux's ENOSPC, which an IOException of the system carries when a disk is full.</summary>
    private const int NoSpaceLeft = 28;

    /// <summary>Where the file lies on this machine. What is there already, whole or in part, is not got again.</summary>
    /// <exception cref="HubException">It cannot be got.</exception>
    /// <exception cref="IOException">It cannot be kept, for example because the disk is full.</exception>
    public async Task<string> GetAsync(HubFile file, Action<DownloadProgress>? progress, CancellationToken cancel)
    {
        string path = cache.Blob(file);
        if (IsWhole(path, file, progress)) return path;
        using IDisposable locked = await cache.LockAsync(file, client.Options.Time, cancel).ConfigureAwait(false);
        if (IsWhole(path, file, progress)) return path;
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        string what = $"{dataset}, {file.Path}";
        long most = Received(file);
        await client.RetryAsync(what, async () =>
        {
            try
            {
                string? hash = await ReceiveAsync(file, what, progress, cancel).ConfigureAwait(false);
                await CheckAsync(file, hash, cancel).ConfigureAwait(false);
                return true;
            }
            catch (PassingFailure failure) when (Received(file) > most)
            {
                // From a server that always breaks off and knows no ranges the same bytes come again and again: these are no progress.
                most = Received(file);
                throw new PassingFailure(failure.Message, failure, failure.Wait, progressed: true);
            }
        }, cancel).ConfigureAwait(false);
        File.Move(cache.Part(file), path, overwrite: true);
        return path;
    }

    private long Received(HubFile file) => new FileInfo(cache.Part(file)) is { Exists: true } part ? part.Length : 0;

    private static bool IsWhole(string path, HubFile file, Action<DownloadProgress>? progress)
    {
        FileInfo info = new(path);
        if (!info.Exists || info.Length != file.Size) return false;
        progress?.Invoke(new(file.Path, file.Size, file.Size));
        return true;
    }

    /// <summary>Appends what is missing to the part that is there.</summary>
    /// <returns>The SHA-256 that the server names, if any.</returns>
    private async Task<string?> ReceiveAsync(HubFile file, string what, Action<DownloadProgress>? progress, CancellationToken cancel)
    {
        FileStream part = new(cache.Part(file), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, 1 << 17, useAsync: true);
        await using (part.ConfigureAwait(false))
        {
            if (part.Length > file.Size) part.SetLength(0);
            progress?.Invoke(new(file.Path, part.Length, file.Size));
            string? hash = null;
            if (part.Length < file.Size || file.Size == 0)
            {
                CheckSpace(part, file);
                Uri address = client.Address($"/datasets/{dataset}/resolve/{commit}/{string.Join('/', file.Path.Split('/').Select(Uri.EscapeDataString))}");
                using HttpResponseMessage response = await RequestAsync(address, what, part, r => hash ??= Linked(r), cancel).ConfigureAwait(false);
                hash ??= Linked(response);
                await AppendAsync(response, part, file, progress, cancel).ConfigureAwait(false);
            }
            await part.FlushAsync(cancel).ConfigureAwait(false);
            part.Flush(flushToDisk: true);
            return hash;
        }
    }

    private async Task<HttpResponseMessage> RequestAsync(Uri address, string what, FileStream part, Action<HttpResponseMessage> onRedirect, CancellationToken cancel)
    {
        HttpResponseMessage response;
        try
        {
            response = await client.GetAsync(address, what, part.Length, cancel, onRedirect).ConfigureAwait(false);
        }
        catch (PassingFailure failure) when (failure.BadRange)
        {
            // What is here does not fit what is there: begin anew.
            part.SetLength(0);
            throw;
        }
        bool continues = response.StatusCode == HttpStatusCode.PartialContent;
        if (continues && response.Content.Headers.ContentRange?.From != part.Length)
        {
            response.Dispose();
            part.SetLength(0);
            throw new PassingFailure("the server sent another part of the file than was asked for");
        }
        // A server that knows no ranges sends all of it.
        if (!continues) part.SetLength(0);
        part.Position = part.Length;
        return response;
    }

    private async Task AppendAsync(HttpResponseMessage response, FileStream part, HubFile file, Action<DownloadProgress>? progress, CancellationToken cancel)
    {
        try
        {
            await client.CopyAsync(response, async (bytes, token) =>
            {
                if (part.Length + bytes.Length > file.Size)
                {
                    part.SetLength(0);
                    throw new PassingFailure($"the server sends more than the {file.Size} bytes of the file");
                }
                await part.WriteAsync(bytes, token).ConfigureAwait(false);
                progress?.Invoke(new(file.Path, part.Position, file.Size));
            }, cancel).ConfigureAwait(false);
        }
        finally
        {
            // What came before a break counts for the next attempt, which another process may make.
            await part.FlushAsync(CancellationToken.None).ConfigureAwait(false);
        }
        if (part.Length < file.Size) throw new PassingFailure($"the file ended after {part.Length} of {file.Size} bytes");
    }

    /// <summary>Compares the whole part with the hash that the Hub gives for the file.</summary>
    private async Task CheckAsync(HubFile file, string? linked, CancellationToken cancel)
    {
        string path = cache.Part(file), found, expected = file.Sha256 ?? linked ?? file.Id;
        FileStream part = new(path, FileMode.Open, FileAccess.Read, FileShare.Read, 1 << 20, useAsync: true);
        await using (part.ConfigureAwait(false))
            found = expected.Length == 64 ? Convert.ToHexStringLower(await SHA256.HashDataAsync(part, cancel).ConfigureAwait(false)) : await GitHashAsync(part, cancel).ConfigureAwait(false);
        if (found == expected) return;
        File.Delete(path);
        throw new PassingFailure($"what came is damaged (its hash is {found} and should be {expected})");
    }

    /// <summary>The hash that git gives a file: SHA-1 of "blob", its length, a zero and its bytes. It tells damage; it is no protection.</summary>
    private static async Task<string> GitHashAsync(FileStream file, CancellationToken cancel)
    {
#pragma warning disable CA5350 // Git's hash is SHA-1.
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA1);
#pragma warning restore CA5350
        hash.AppendData(Encoding.ASCII.GetBytes($"blob {file.Length}\0"));
        byte[] buffer = new byte[1 << 17];
        for (int read; (read = await file.ReadAsync(buffer, cancel).ConfigureAwait(false)) > 0;) hash.AppendData(buffer.AsSpan(0, read));
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    private static string? Linked(HttpResponseMessage response) =>
        response.Headers.TryGetValues(LinkedHash, out IEnumerable<string>? values) && values.First().Trim('"') is { Length: 64 } hash && hash.All(char.IsAsciiHexDigit) ? hash.ToLowerInvariant() : null;

    private static void CheckSpace(FileStream part, HubFile file)
    {
        long missing = file.Size - part.Length, free = new DriveInfo(Path.GetDirectoryName(part.Name)!).AvailableFreeSpace;
        if (missing > free) throw new IOException($"{file.Path} needs {missing} more bytes, and the disk of {Path.GetDirectoryName(part.Name)} has {free}; make room, or choose another folder for downloads.", NoSpaceLeft);
    }
}
