using System.Globalization;
using NopeGpt.Jobs;

namespace NopeGpt.Web.Chat;

/// <summary>How the model process is started.</summary>
public sealed record ModelProcessOptions
{
    /// <summary>The executable: the apphost beside this program.</summary>
    public string Program { get; init; } = Path.Combine(AppContext.BaseDirectory, "nopegpt");

    /// <summary>Minutes without a request after which it ends by itself, so that its memory is free.</summary>
    public int IdleMinutes { get; init; } = 15;

    /// <summary>How long its start may take until /health answers; loading a model comes later.</summary>
    public TimeSpan StartTimeout { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>Its arguments for a storage root.</summary>
    public Func<Store, IReadOnlyList<string>> Arguments => store => First.Concat(
        ["serve", "--root", store.Root, "--socket", store.ServeSocketPath, "--idle-minutes", IdleMinutes.ToString(CultureInfo.InvariantCulture)]).ToList();

    /// <summary>Arguments before those; for a program that is run by another one.</summary>
    public IReadOnlyList<string> First { get; init; } = [];
}
