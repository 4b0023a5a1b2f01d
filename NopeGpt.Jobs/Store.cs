using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;
using Microsoft.Extensions.Configuration;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs;

/// <summary>The storage root: where runs, data sets, tokenizers and imported models lie. Names from outside become paths only here.</summary>
public sealed partial class Store
{
    // sockaddr_un holds 108 bytes with the closing zero.
    private const int LongestSocketPath = 107;

    public Store(string root)
    {
        Root = Path.GetFullPath(root);
        try
        {
            foreach (string folder in new[] { RunsFolder, DatasetsFolder, TokenizersFolder, CacheFolder }) Directory.CreateDirectory(folder);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new UserException($"the storage root {Root} cannot be written ({e.Message.TrimEnd('.')}): name another folder with --root or Storage:Root", ExitCode.DiskFull);
        }
    }

    public string Root { get; }
    public string RunsFolder => Path.Combine(Root, "runs");
    public string DatasetsFolder => Path.Combine(Root, "datasets");
    public string TokenizersFolder => Path.Combine(Root, "tokenizers");
    public string CacheFolder => Path.Combine(Root, "cache");

    /// <summary>Models that export runs wrote for other programs. Made with the first one.</summary>
    public string ExportsFolder => Path.Combine(Root, "exports");

    /// <summary>Files that were sent to the dashboard, to make data sets of. Made with the first one.</summary>
    public string UploadsFolder => Path.Combine(Root, "uploads");

    /// <summary>Where the file of a tokenizer that only names a published encoding is looked for.</summary>
    public IReadOnlyList<string> TokenizerPlaces => PlacesUnder(Root);

    /// <summary>Fetches that file into the store's cache where it is in none of these places.</summary>
    public EncodingDownload TokenizerDownload => new(CacheFolder) { Address = TokenizerAddress };

    /// <summary>Where the files of published encodings are fetched from.</summary>
    public Uri TokenizerAddress { get; init; } = new(EncodingDownload.Published);

    /// <summary>Where data sets of the Hub are asked for, and kept. HF_ENDPOINT names a mirror where no setting does, HF_TOKEN the access token.</summary>
    public HubOptions Hub
    {
        get
        {
            try
            {
                HubOptions options = HubOptions.FromEnvironment(Path.Combine(CacheFolder, "hub"));
                return HubAddress is null ? options : options with { Endpoint = HubAddress };
            }
            catch (FormatException e) { throw new UserException(e.Message); }
        }
    }

    /// <summary>The Hub's address where a setting names one.</summary>
    public Uri? HubAddress { get; init; }

    /// <summary>The run table's database.</summary>
    public string DatabasePath => Path.Combine(Root, "nopegpt.db");

    /// <summary>Written by a running dashboard: where trainers reach its hub.</summary>
    public string DashboardPath => Path.Combine(Root, "dashboard.json");

    /// <summary>The serving process's Unix socket: in the root, or, where that path is longer than a socket's may be, in a folder of the
    /// user's own in the temporary place.</summary>
    public string ServeSocketPath
    {
        get
        {
            string path = Path.Combine(Root, "serve.sock");
            if (Encoding.UTF8.GetByteCount(path) <= LongestSocketPath) return path;
            string name = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(Root)))[..16];
            string folder = Path.Combine(Path.GetTempPath(), $"nopegpt-{Environment.UserName}-{name}");
            Directory.CreateDirectory(folder);
            if (!OperatingSystem.IsWindows()) File.SetUnixFileMode(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            return Path.Combine(folder, "serve.sock");
        }
    }

    /// <summary>The store at that root, else at the one that Storage:Root (or NOPEGPT_Storage__Root) names; the user's local application data where it names none.</summary>
    public static Store Open(IConfiguration configuration, string? root = null) =>
        new(root ?? FindRoot(configuration) ?? throw new UserException("there is no home folder to keep runs in: set HOME, --root or Storage:Root", ExitCode.BadConfiguration))
        {
            TokenizerAddress = FindAddress(configuration, "Tokenizers:Address") ?? new(EncodingDownload.Published),
            HubAddress = FindAddress(configuration, "Hub:Endpoint"),
        };

    private static Uri? FindAddress(IConfiguration configuration, string setting)
    {
        if (configuration[setting] is not { } address || string.IsNullOrWhiteSpace(address)) return null;
        return Uri.TryCreate(address, UriKind.Absolute, out Uri? found) && found.Scheme is "http" or "https" ? found
            : throw new UserException($"{setting} = {address}: it must be an http or https address, or empty for the usual one", ExitCode.BadConfiguration);
    }

    /// <summary>The root that <see cref="Open"/> would take; it need not exist and is not made. Null where nothing says where one is.</summary>
    public static string? RootOf(string? root, IConfiguration configuration) => (root ?? FindRoot(configuration)) is { } found ? Path.GetFullPath(found) : null;

    /// <summary><see cref="TokenizerPlaces"/> of the store at that root, else of the one that Storage:Root names; it need not exist and is not made.</summary>
    public static IReadOnlyList<string> TokenizerPlacesOf(string? root, IConfiguration configuration) =>
        (root ?? FindRoot(configuration)) is { } found ? PlacesUnder(Path.GetFullPath(found)) : [];

    /// <summary><see cref="TokenizerDownload"/> of that store; null where nothing says where one is.</summary>
    /// <exception cref="UserException">Tokenizers:Address is no address.</exception>
    public static EncodingDownload? TokenizerDownloadOf(string? root, IConfiguration configuration) =>
        (root ?? FindRoot(configuration)) is { } found ? new(Path.Combine(Path.GetFullPath(found), "cache")) { Address = FindAddress(configuration, "Tokenizers:Address") ?? new(EncodingDownload.Published) } : null;

    private static IReadOnlyList<string> PlacesUnder(string root) => [Path.Combine(root, "tokenizers"), Path.Combine(root, "cache")];

    private static string? FindRoot(IConfiguration configuration)
    {
        if (configuration["Storage:Root"] is { } root && !string.IsNullOrWhiteSpace(root)) return root;
        string data = Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData, Environment.SpecialFolderOption.DoNotVerify);
        return data.Length == 0 ? null : Path.Combine(data, "nopegpt");
    }

    /// <summary>True for a name that may become one folder or file name under the root.</summary>
    public static bool IsName(string name) => NamePattern().IsMatch(name) && !name.Contains("..", StringComparison.Ordinal);

    public string RunFolder(string id) => Path.Combine(RunsFolder, Checked(id));
    public string DatasetFolder(string name) => Path.Combine(DatasetsFolder, Checked(name));
    public string DatasetTokens(string name) => Path.Combine(DatasetFolder(name), "tokens.bin");
    public string TokenizerFolder(string name) => Path.Combine(TokenizersFolder, Checked(name));

    /// <summary>The folder that an export run writes: the one that it names, or else one of its name, or else of its id.</summary>
    /// <param name="id">The run's id; null where it is not known yet.</param>
    /// <returns>Null where it is known only with the id.</returns>
    public string? ExportFolder(RunConfig config, string? id)
    {
        ArgumentNullException.ThrowIfNull(config);
        if (config.Export.Out.Length > 0) return config.Export.Out;
        string named = config.Name.Replace(' ', '-');
        return IsName(named) ? Path.Combine(ExportsFolder, named) : id is null ? null : Path.Combine(ExportsFolder, Checked(id));
    }

    /// <summary>The token file of a data set: by its name in the store, or a path.</summary>
    public string ResolveTokenFile(string nameOrPath) =>
        IsName(nameOrPath) && !File.Exists(nameOrPath) ? DatasetTokens(nameOrPath) : Path.GetFullPath(nameOrPath);

    /// <summary>The folder of the tokenizer that a token file was made with: `tokenizer.json` beside it.</summary>
    public static string TokenizerBeside(string tokenFile) => Path.Combine(Path.GetDirectoryName(tokenFile)!, "tokenizer.json");

    private static string Checked(string name) =>
        IsName(name) ? name : throw new ArgumentException($"'{name}' cannot be a name: use letters, digits, dots, hyphens and underscores, at most 64", nameof(name));

    [GeneratedRegex(@"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z")]
    private static partial Regex NamePattern();
}

/// <summary>A mistake that a person can mend: shown as it is, without a stack trace, with an exit code of <see cref="ExitCode"/>.</summary>
public sealed class UserException(string message, int exitCode = ExitCode.BadConfiguration) : Exception(message)
{
    public int ExitCode { get; } = exitCode;
}
