using System.Reflection;

namespace NopeGpt.Web.Api;

/// <summary>GET /health: answers while the dashboard works.</summary>
internal static class HealthApi
{
    private static readonly string Version = typeof(HealthApi).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "";

    public static void Map(IEndpointRouteBuilder app) => app.MapGet("/health", (TimeProvider time) =>
        Results.Json(new { status = "ok", version = Version, processId = Environment.ProcessId, time = time.GetUtcNow() }));
}
