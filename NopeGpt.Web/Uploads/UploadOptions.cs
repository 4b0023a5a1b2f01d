using NopeGpt.Jobs;

namespace NopeGpt.Web.Uploads;

/// <summary>What may be sent to the dashboard.</summary>
public sealed record UploadOptions
{
    /// <summary>Bytes of one file at most (Uploads:MaximumBytes).</summary>
    public long MaximumBytes { get; init; } = 2_000_000_000;

    /// <exception cref="UserException">Uploads:MaximumBytes is not a sound number.</exception>
    public static UploadOptions Read(IConfiguration configuration)
    {
        string? bytes = configuration["Uploads:MaximumBytes"];
        if (string.IsNullOrWhiteSpace(bytes)) return new UploadOptions();
        return long.TryParse(bytes, out long value) && value >= 1
            ? new UploadOptions { MaximumBytes = value }
            : throw new UserException($"Uploads:MaximumBytes = {bytes}: must be a whole number of bytes from 1 on, such as 2000000000");
    }
}
