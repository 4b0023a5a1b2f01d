namespace NopeGpt.Tests;

/// <summary>A test that needs something outside the repository. It is skipped with a sentence where that is missing;
/// `.ci/run` installs everything and fails on any skip.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class NeedsFactAttribute : FactAttribute
{
    public NeedsFactAttribute(params string[] needs) => Skip = Needs.Missing(needs);
}

/// <summary>As <see cref="NeedsFactAttribute"/>, for theories.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class NeedsTheoryAttribute : TheoryAttribute
{
    public NeedsTheoryAttribute(params string[] needs) => Skip = Needs.Missing(needs);
}

internal static class Needs
{
    public const string SharedData = "shared data";
    public const string Chromium = "chromium";
    public const string PostgreSql = "postgresql";

    /// <summary>A mount namespace, for a small disk of the test's own.</summary>
    public const string Mount = "mount";

    /// <summary>The folder of the shared test data, or null where it is missing: NOPEGPT_TEST_DATA, or shared/data beside the checkout.</summary>
    public static string? DataFolder { get; } = FindData();

    public static string? ChromiumPath { get; } = OnPath("chromium") ?? OnPath("chromium-browser") ?? OnPath("google-chrome");

    /// <summary>The folder with initdb and postgres, or null.</summary>
    public static string? PostgreSqlFolder { get; } = Directory.Exists("/usr/lib/postgresql")
        ? Directory.EnumerateDirectories("/usr/lib/postgresql").OrderDescending().Select(d => Path.Combine(d, "bin")).FirstOrDefault(d => File.Exists(Path.Combine(d, "initdb")))
        : OnPath("initdb") is { } initdb ? Path.GetDirectoryName(initdb) : null;

    private static Lazy<bool> MayMount { get; } = new(() =>
    {
        if (OnPath("unshare") is null || OnPath("bash") is null) return false;
        using System.Diagnostics.Process trial = System.Diagnostics.Process.Start(new System.Diagnostics.ProcessStartInfo("unshare", ["--mount", "bash", "-c", "mount -t tmpfs tmpfs /mnt"]) { RedirectStandardError = true })!;
        trial.WaitForExit();
        return trial.ExitCode == 0;
    });

    public static string Data(string relative) => Path.Combine(DataFolder ?? throw new InvalidOperationException("the shared data is missing"), relative);

    public static string? Missing(IEnumerable<string> needs)
    {
        List<string> missing = [];
        foreach (string need in needs)
        {
            string? reason = need switch
            {
                SharedData when DataFolder is null => "the shared test data is not here (set NOPEGPT_TEST_DATA to its folder)",
                Chromium when ChromiumPath is null => "Chromium is not installed (Debian: apt-get install chromium)",
                PostgreSql when PostgreSqlFolder is null => "PostgreSQL is not installed (Debian: apt-get install postgresql)",
                Mount when !MayMount.Value => "this user may not mount a small disk (it takes root with CAP_SYS_ADMIN)",
                _ => null,
            };
            if (reason is not null) missing.Add(reason);
        }
        return missing.Count == 0 ? null : string.Join("; ", missing);
    }

    private static string? FindData()
    {
        string? named = Environment.GetEnvironmentVariable("NOPEGPT_TEST_DATA");
        if (named is not null) return Directory.Exists(named) ? named : null;
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            string candidate = Path.Combine(folder.FullName, "shared", "data");
            if (Directory.Exists(Path.Combine(candidate, "parity"))) return candidate;
        }
        return null;
    }

    private static string? OnPath(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Select(d => Path.Combine(d, program)).FirstOrDefault(File.Exists);
}
