namespace NopeGpt.Data.Documents.Hub;

/// <summary>A file of a data set on the Hub.</summary>
/// <param name="Path">Its place in the data set.</param>
/// <param name="Size">Bytes.</param>
/// <param name="Id">The hash that git has for it (of a file in large-file storage: for the pointer to it).</param>
/// <param name="Sha256">Its SHA-256 in hexadecimal; null where the Hub does not give it, as for small files.</param>
public sealed record HubFile(string Path, long Size, string Id, string? Sha256);

/// <summary>How far a download is.</summary>
/// <param name="File">The file's place in the data set.</param>
/// <param name="Bytes">Bytes that are here.</param>
/// <param name="Total">Bytes of the whole file.</param>
public sealed record DownloadProgress(string File, long Bytes, long Total);
