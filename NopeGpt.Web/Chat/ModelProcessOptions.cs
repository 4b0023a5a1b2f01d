using NopeGpt.Jobs;

namespace NopeGpt.Web.Chat;

/// <summary>How the model process is kept.</summary>
public sealed record ModelProcessOptions
{
    /// <summary>Minutes without a request after which it ends by itself, so that its memory is free (Serve:IdleMinutes).</summary>
    public int IdleMinutes { get; init; } = 15;

    /// <summary>How long its start may take until /health answers; loading a model comes later.</summary>
    public TimeSpan StartTimeout { get; init; } = TimeSpan.FromSeconds(60);

    /// <exception cref="UserException">Serve:IdleMinutes is not a sound number.</exception>
    public static ModelProcessOptions Read(IConfiguration configuration)
    {
        string? minutes = configuration["Serve:IdleMinutes"];
        if (string.IsNullOrWhiteSpace(minutes)) return new ModelProcessOptions();
        return int.TryParse(minutes, out int value) && value is >= 1 and <= 100_000
            ? new ModelProcessOptions { IdleMinutes = value }
            : throw new UserException($"Serve:IdleMinutes = {minutes}: must be a whole number of minutes from 1 to 100000");
    }
}
