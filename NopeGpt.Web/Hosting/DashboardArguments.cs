using System.Net;
using System.Net.Sockets;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;

namespace NopeGpt.Web.Hosting;

/// <summary>The dashboard's command line and addresses, checked before anything starts.</summary>
internal static class DashboardArguments
{
    public const string Help = """
        The dashboard of NopeGpt. Options (also in appsettings.json, and in the environment as NOPEGPT_Storage__Root and so on):
          --urls URL        address to listen on, of this machine only (default http://127.0.0.1:5080; port 0 takes a free one)
          --root DIR        storage root (default: the user's local application data, nopegpt)
          --SECTION:NAME=X  any setting of appsettings.json, for example --Jobs:OnShutdown=Detach
        """;

    private static readonly string[] Known = ["urls", "root"];

    private static readonly string[] KnownSettings =
        ["Storage:Root", "Jobs:Storage", "Jobs:ConnectionString", "Jobs:OnShutdown", "Jobs:StopGraceSeconds", "Jobs:Attempts", "Jobs:RetrySeconds", "Jobs:TrashDays",
            "Jobs:NvidiaSmi", "Jobs:CpuSlots", "Jobs:PreparationSlots", "Jobs:CpuThreads", "Notices:Webhook", "Notices:Secret", "Serve:IdleMinutes", "Uploads:MaximumBytes"];

    // Read by the host, which knows their names.
    private static readonly string[] Sections = ["Logging:", "Kestrel:"];

    /// <exception cref="UserException">An option that does not exist, or something that is none.</exception>
    public static void Check(string[] args)
    {
        for (int i = 0; i < args.Length; i++)
        {
            string name = args[i].Split('=')[0];
            if (!name.StartsWith("--", StringComparison.Ordinal)) throw new UserException($"'{args[i]}' is not an option: use --urls, --root or --Section:Name=value");
            if (!name.Contains(':') && !Known.Contains(name[2..], StringComparer.OrdinalIgnoreCase)) throw new UserException($"{name} is not an option: use --urls, --root or --Section:Name=value");
            if (name.Contains(':')) CheckSetting(name[2..]);
            if (args[i].Contains('=')) continue;
            if (i + 1 == args.Length) throw new UserException($"{name} needs a value: {name} VALUE or {name}=VALUE");
            i++;
        }
    }

    /// <exception cref="UserException">An address that is not one, that other machines could reach, or whose port is taken.</exception>
    public static void CheckAddresses(IConfiguration configuration)
    {
        if (configuration.GetSection("Kestrel:Endpoints").GetChildren().Any()) throw new UserException("Kestrel:Endpoints is not supported: name the address with --urls");
        string urls = configuration["urls"] ?? "";
        if (urls.Length == 0) throw new UserException("no address to listen on: name one with --urls http://127.0.0.1:5080");
        foreach (string url in urls.Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
        {
            if (!Uri.TryCreate(url, UriKind.Absolute, out Uri? uri) || uri.Scheme != Uri.UriSchemeHttp)
                throw new UserException($"'{url}' is not an address to listen on: use --urls http://127.0.0.1:5080");
            if (!LocalOnly.IsLocal(uri.Host))
                throw new UserException($"{url} could be reached from other machines, and there is no login yet: use --urls http://127.0.0.1:{uri.Port}, and from elsewhere a tunnel (ssh -L {uri.Port}:127.0.0.1:{uri.Port})");
            if (uri.PathAndQuery != "/" || uri.Fragment.Length > 0)
                throw new UserException($"{url} has a path, and an address to listen on has none: use --urls http://{uri.Authority}");
            if (uri.Port == 0 && !IPAddress.TryParse(uri.Host.Trim('[', ']'), out _))
                throw new UserException($"{url} cannot take a free port by the name {uri.Host}: use --urls http://127.0.0.1:0");
            CheckFree(url, uri);
        }
    }

    public static UserException InUse(string url) =>
        new($"{url} is in use by another program: end it, or take another port with --urls http://127.0.0.1:PORT (0 takes a free one)");

    private static void CheckSetting(string name)
    {
        if (KnownSettings.Contains(name, StringComparer.OrdinalIgnoreCase) || Sections.Any(s => name.StartsWith(s, StringComparison.OrdinalIgnoreCase))) return;
        throw new UserException(name.Equals("Torch:LibraryPath", StringComparison.OrdinalIgnoreCase)
            ? "Torch:LibraryPath does not reach the processes that compute from here: set it in appsettings.json or as NOPEGPT_Torch__LibraryPath"
            : $"there is no setting {name}{(Settings.Nearest(name, KnownSettings) is { } near ? $"; did you mean {near}?" : "")}: known are {string.Join(", ", KnownSettings)} and Logging:...");
    }

    /// <summary>Before the queue starts its work, not after.</summary>
    private static void CheckFree(string url, Uri uri)
    {
        if (uri.Port == 0) return;
        IPAddress address = IPAddress.TryParse(uri.Host.Trim('[', ']'), out IPAddress? named) ? named : IPAddress.Loopback;
        using Socket socket = new(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            socket.Bind(new IPEndPoint(address, uri.Port));
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.AddressAlreadyInUse)
        {
            throw InUse(url);
        }
        catch (SocketException e)
        {
            throw new UserException($"{url} cannot be listened on ({e.Message}): use --urls http://127.0.0.1:5080");
        }
    }
}
